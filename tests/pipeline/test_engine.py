"""The engine: order, answers, times, and beginning anew after a conflict, on a real store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from runstream.model.errors import Aborted, NotFound
from runstream.pipeline.context import Caller, ContextKey, RequestContext
from runstream.pipeline.engine import MAX_TRIES, Pipeline, run_inner, step_name
from runstream.pipeline.steps import AnswerState, Persist
from runstream.storage.records import AGENT
from runstream.storage.store import Conflict, Transaction
from runstream.v1.agent_pb2 import Agent
from runstream.v1.resource_pb2 import ResourceId
from tests.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.pipeline.engine import Step
    from runstream.storage.leveldb import LevelDBStore

AGENT_ID = "agt_00000000000000000000000001"
REQUEST = ResourceId(value=AGENT_ID)
CALLER = Caller(actor="tester")

Context = RequestContext[ResourceId, Agent]


class Times:
    """Takes down what the engine measures."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, str]] = []
        self.seconds: list[float] = []

    def __call__(self, pipeline: str, step: str) -> Callable[[float], None]:
        """Return what takes the measurements of one step."""

        def note(seconds: float) -> None:
            self.measured.append((pipeline, step))
            self.seconds.append(seconds)

        return note


def pipeline(store: LevelDBStore, *steps: Step[ResourceId, Agent, Agent], times: Times | None = None) -> Any:  # noqa: ANN401
    """A command named Test of these steps."""
    return Pipeline("Test", steps, store=store, now=FakeClock().now, observe=times or Times())


async def load(context: Context) -> None:
    """Load the agent as the state, a new one if there is none, and count its revision up."""
    existing = await context.get(AGENT, context.request.value)
    context.transaction.expect(AGENT, AGENT_ID, None if existing is None else existing.metadata.revision)
    state = existing or Agent()
    state.metadata.id = AGENT_ID
    state.metadata.revision += 1
    state.metadata.tags.append(context.caller.actor)
    context.state = state


async def stage(context: Context) -> None:
    """Stage the state."""
    context.transaction.put(AGENT, AGENT_ID, context.state)


class CommitInBetween:
    """Commits a change to the same agent behind the command's back, a number of times."""

    def __init__(self, store: LevelDBStore, times: int) -> None:
        self._store = store
        self._left = times
        self.contexts: list[Context] = []

    async def __call__(self, context: Context) -> None:
        """Commit, if there is one left to do."""
        self.contexts.append(context)
        if not self._left:
            return
        self._left -= 1
        newest = await self._store.pending.get(AGENT, AGENT_ID) or Agent()
        newest.metadata.id = AGENT_ID
        newest.metadata.revision += 1
        newest.metadata.tags.append("other")
        transaction = Transaction()
        transaction.put(AGENT, AGENT_ID, newest)
        await self._store.commit(transaction)


async def test_the_steps_run_in_order_and_the_last_one_answers(store: LevelDBStore) -> None:
    """A command is its steps, one after the other; what the last one returns is the answer."""
    order: list[str] = []

    async def first(_: Context) -> None:
        order.append("first")

    async def second(_: Context) -> Agent:
        order.append("second")
        return Agent(kind="answer")

    assert await pipeline(store, first, second).run(REQUEST, CALLER) == Agent(kind="answer")
    assert order == ["first", "second"]


async def test_an_answer_stops_the_steps_behind_it(store: LevelDBStore) -> None:
    """A step that answers ends the command; nothing behind it runs or is stored."""

    async def answer(_: Context) -> Agent:
        return Agent(kind="early")

    times = Times()
    told = await pipeline(store, load, stage, answer, Persist(), AnswerState(), times=times).run(REQUEST, CALLER)
    assert told == Agent(kind="early")
    assert [step for _, step in times.measured] == ["load", "stage", "answer"]
    assert await store.pending.get(AGENT, AGENT_ID) is None


async def test_a_command_that_does_not_answer_is_a_fault(store: LevelDBStore) -> None:
    """A list of steps without an answer is told by the command's name."""
    with pytest.raises(LookupError, match="no step of Test answered"):
        await pipeline(store, load).run(REQUEST, CALLER)


async def test_a_conflict_begins_anew_on_a_fresh_context(store: LevelDBStore) -> None:
    """When somebody else was quicker, all steps run again on what is there now, and nothing of the first try stays."""
    between = CommitInBetween(store, times=1)
    command = pipeline(store, load, between, stage, Persist(), AnswerState())
    answer = await command.run(REQUEST, CALLER)
    first, second = between.contexts
    assert first is not second
    assert first.transaction is not second.transaction
    assert (answer.metadata.revision, list(answer.metadata.tags)) == (2, ["other", "tester"])
    assert await store.durable.get(AGENT, AGENT_ID) == answer


async def test_after_the_last_try_the_conflict_goes_to_the_caller(store: LevelDBStore) -> None:
    """A command that is beaten every time gives up as ABORTED, and has stored nothing."""
    between = CommitInBetween(store, times=MAX_TRIES)
    with pytest.raises(Aborted) as told:
        await pipeline(store, load, between, stage, Persist(), AnswerState()).run(REQUEST, CALLER)
    assert told.value.reason == "CONFLICT"
    assert len(between.contexts) == MAX_TRIES
    found = await store.durable.get(AGENT, AGENT_ID)
    assert found is not None
    assert list(found.metadata.tags) == ["other"] * MAX_TRIES


async def test_the_last_try_counts(store: LevelDBStore) -> None:
    """A command that is beaten every time but the last lands."""
    between = CommitInBetween(store, times=MAX_TRIES - 1)
    answer = await pipeline(store, load, between, stage, Persist(), AnswerState()).run(REQUEST, CALLER)
    assert answer.metadata.revision == MAX_TRIES


async def test_any_other_error_is_not_tried_again(store: LevelDBStore) -> None:
    """What a step raises goes to the caller at once; only a conflict is worth another try."""
    tries = []

    async def fail(_: Context) -> None:
        tries.append(1)
        raise NotFound("NOT_THERE", "not there")

    with pytest.raises(NotFound, match="not there"):
        await pipeline(store, fail, AnswerState()).run(REQUEST, CALLER)
    assert tries == [1]


async def test_a_conflict_that_a_step_finds_itself_is_one(store: LevelDBStore) -> None:
    """A step may say that what it saw has changed; that is a conflict as any."""
    tries = []

    async def changed(_: Context) -> Agent:
        tries.append(1)
        if len(tries) < 3:
            raise Conflict("what I saw")
        return Agent()

    await pipeline(store, changed).run(REQUEST, CALLER)
    assert len(tries) == 3


async def test_every_run_of_every_step_is_timed(store: LevelDBStore) -> None:
    """Each step is measured under its command's and its own name, once per try, also when it fails."""
    times = Times()
    between = CommitInBetween(store, times=1)
    await pipeline(store, load, between, stage, Persist(), AnswerState(), times=times).run(REQUEST, CALLER)
    once = ["load", "CommitInBetween", "stage", "Persist"]
    assert times.measured == [("Test", step) for step in [*once, *once, "AnswerState"]]
    assert all(seconds >= 0 for seconds in times.seconds)


async def test_all_of_a_hundred_commands_at_once_land(store: LevelDBStore) -> None:
    """Commands on one record at once are run again until each has landed, in some order."""

    async def yield_(_: Context) -> None:
        await asyncio.sleep(0)

    for _ in range(20):
        command = pipeline(store, load, yield_, stage, Persist(), AnswerState())
        await asyncio.gather(*(command.run(REQUEST, CALLER) for _ in range(5)))
    found = await store.durable.get(AGENT, AGENT_ID)
    assert found is not None
    assert found.metadata.revision == len(found.metadata.tags) == 100


async def test_every_time_of_a_command_is_the_same(store: LevelDBStore) -> None:
    """The time of a command is read once, so that all it writes agrees."""
    clock = FakeClock()
    seen = []

    async def look(context: Context) -> None:
        seen.append(context.now)
        clock.advance(1)

    command = Pipeline("Test", [look, look, answer_nothing], store=store, now=clock.now, observe=Times())
    await command.run(REQUEST, CALLER)
    assert seen[0] == seen[1]


async def answer_nothing(_: Context) -> Agent:
    return Agent()


async def test_steps_inside_a_command_share_its_commit(store: LevelDBStore) -> None:
    """An inner command has a request of its own and stages into the same transaction; its answer is dropped."""
    key: ContextKey[str] = ContextKey("inner value")

    async def put(context: Context) -> Agent:
        context.put(key, context.request.value)
        context.transaction.put(AGENT, context.request.value, Agent(kind="inner"))
        return Agent(kind="dropped")

    async def outer(context: Context) -> Agent:
        inner = await run_inner([put, put], context.inner(ResourceId(value=AGENT_ID)))
        assert inner.value(key) == AGENT_ID
        assert inner.transaction is context.transaction
        assert (inner.now, inner.caller) == (context.now, context.caller)
        with pytest.raises(LookupError):
            context.value(key)
        return await context.get(AGENT, AGENT_ID) or Agent()

    assert await pipeline(store, outer).run(ResourceId(), CALLER) == Agent(kind="inner")


def test_a_step_is_named_as_it_is_written() -> None:
    """A function is named by its name, an object by its class."""
    assert step_name(load) == "load"
    assert step_name(Persist()) == "Persist"
