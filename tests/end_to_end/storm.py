"""Executions of numbered work under way, people who interfere, and processes that die and come back.

Everybody behaves as the documentation asks: who creates repeats with the same key, who watches comes back with the
cursor, and who has no answer asks again. What each was told is kept, and must agree with what is on disk in the end.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc import aio

from runstream.model.phases import phase_name
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    ExecutionChange,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
    WatchAgentExecutionRequest,
)
from tests.care.folders import findings_of
from tests.end_to_end.folder_check import bits, check_folder, fold_of
from tests.end_to_end.followers import Watcher
from tests.end_to_end.numbered import (
    ASKS,
    COMPLETES,
    FAILS,
    GOES_ON,
    HANGS,
    IN_HASTE,
    PLANNED,
    STARTS_OVER,
    WANTS_APPROVAL,
    Mark,
    Plan,
)
from tests.end_to_end.numbered_log import RELEASES, Story, check_leases, judge
from tests.end_to_end.runner_process import RunnerProcess
from tests.making import agent, delta, execution
from tests.process import ServerProcess
from tests.serving import MISSING, PRECONDITION, Client, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path
    from random import Random

    from tests.end_to_end.folder_check import Contents

T = TypeVar("T")

#: Tells what happened; `pytest --log-cli-level=INFO` shows it.
_LOG = logging.getLogger(__name__)

#: See `tests.end_to_end.followers`: what a client is told that has lost its server.
_SERVER_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_ENDS = (COMPLETES, COMPLETES, FAILS, HANGS, ASKS, WANTS_APPROVAL, IN_HASTE)
#: How long a test waits for anything at all to happen.
_PATIENCE_SECONDS = 60
#: How many executions of an agent may run at a time, so that a place which is not given back is missed.
_AT_A_TIME = 4
#: How long each execution may take at most. None needs a tenth of it, unless somebody's clock is wrong.
DEADLINE_SECONDS = 600
#: How long those may take that hang until their time is over.
_SHORT_SECONDS = 2
#: By this revision at the latest people interfere; every plan gets so far, even one that then hangs.
_EARLY = 6


@dataclass(slots=True)
class Followed:
    """An execution, the one who follows it, and what that one was told."""

    id: str
    plan: Plan
    #: At which revisions people interfere; 0 is never.
    cancel_at: int
    pause_at: int
    log: list[ExecutionChange] = field(default_factory=list)
    ended: bool = False

    @property
    def told(self) -> str:
        """Where it stands, for whoever looks for what went wrong."""
        status = fold_of(self.log).status
        tail = "\n".join(str(change) for change in self.log[-4:])
        return f"{self.id} {self.plan} is {phase_name(status.phase)} at attempt {status.attempt}, after:\n{tail}"


class StormServer(ServerProcess):
    """A server that can also be made to do nothing for a while."""

    def freeze(self) -> None:
        """Let it do nothing at all until it is thawed; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        self._signal(signal.SIGCONT)


class Storm:
    """A server, its runners, and the executions under way."""

    def __init__(self, server: StormServer, client: Client, random: Random, **runner_options: Any) -> None:  # noqa: ANN401
        self.server = server
        self.client = client
        self.random = random
        self.runners: list[RunnerProcess] = []
        self.executions: list[Followed] = []
        self.watchers: list[Watcher] = []
        #: What happened, counted.
        self.tally: Counter[str] = Counter()
        #: The path over which runners call the server; empty is the direct one.
        self.runner_address = ""
        #: How long each execution may take at most.
        self.deadline_seconds = DEADLINE_SECONDS
        #: What the server may log as an error, since it was made to.
        self.expected_errors: tuple[str, ...] = ()
        self._runner_options = runner_options
        #: The agents, and the sessions of each that there are.
        self._sessions: dict[str, list[str]] = {}
        self._slugs: dict[str, str] = {}
        #: How many changes those who follow have seen.
        self._changes = 0
        self._news = asyncio.Event()
        self._names = count(1)
        self._keys = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self, runners: int) -> None:
        """Make the agents and start the runners."""
        for slug in (STARTS_OVER, GOES_ON):
            made = agent(slug)
            made.spec.max_attempts = 100
            made.spec.resume_attempts = slug == GOES_ON
            made.spec.max_concurrent_executions = _AT_A_TIME
            made.spec.max_duration.FromSeconds(self.deadline_seconds)
            self._slugs[slug] = (await self.client.agents.Create(made, wait_for_ready=True)).metadata.id
            self._sessions[self._slugs[slug]] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(runners):
                group.create_task(self.start_runner())

    async def start_runner(self, server: str = "", **options: Any) -> RunnerProcess:  # noqa: ANN401  # of any type
        """Start one more runner, which calls the server where it is, or over another path to it."""
        options = {**self._runner_options, **options}
        address = server or self.runner_address or self.server.address
        runner = RunnerProcess(address, f"r{next(self._names)}", **options)
        self.runners.append(runner)
        await runner.start()
        return runner

    @property
    def running(self) -> list[RunnerProcess]:
        """The runners that have not ended."""
        return [runner for runner in self.runners if runner.running]

    async def replace(self, runner: RunnerProcess) -> None:
        """Kill a runner this instant, and start another one."""
        runner.strike()
        self.tally["runner kills"] += 1
        await runner.stop()
        await self.start_runner()

    async def kill_server(self) -> None:
        """Kill the server this instant, look at what it left, and start it again."""
        self.server.strike()
        self.tally["server kills"] += 1
        await self.server.kill9()
        await asyncio.to_thread(self._check_halfway)
        await self.server.start()

    async def end_server(self) -> None:
        """Ask the server to end, as an operator does, and start it again."""
        self.tally["server asked to end"] += 1
        assert await self.server.terminate() == 0
        await asyncio.to_thread(self._check_halfway)
        await self.server.start()

    def submit(self, number: int, *, interfere: bool = True, seconds: float = 0.0) -> None:
        """Begin to create executions with plans at random, over some seconds; each is followed to its end."""
        self._begin(self._submit(number, interfere=interfere, seconds=seconds))

    async def _submit(self, number: int, *, interfere: bool, seconds: float) -> None:
        for _ in range(number):
            await asyncio.sleep(self.random.random() * 2 * seconds / number)
            await self.create(self._plan() if interfere else Plan(self.random.randrange(6, 20)), interfere=interfere)

    async def progress(self, changes: int) -> None:
        """Return when those who follow have seen so many changes more, or the end of all there is so far."""
        until = self._changes + changes
        await self._until(lambda: self._changes >= until or self._all_ended)

    async def reached(self, executions: list[Followed], revision: int) -> None:
        """Return when those who follow these have seen them come so far; none has ended by then."""
        await self._until(lambda: all(len(each.log) >= revision for each in executions))
        assert not any(each.ended for each in executions)

    @property
    def _all_ended(self) -> bool:
        return bool(self.executions) and all(each.ended for each in self.executions)

    async def create(self, plan: Plan, *, interfere: bool = False, slug: str = "") -> Followed:
        """Create an execution, and follow it to its end."""
        agent_id = self._slugs[slug or self.random.choice((STARTS_OVER, GOES_ON))]
        request = execution(agent_id=agent_id, message=plan.message)
        kind, sessions = self.random.random(), self._sessions[agent_id]
        if kind < 0.2 and interfere and sessions:
            request.spec.session_id = self.random.choice(sessions)
        elif kind > 0.8:
            request.spec.context.stateless = True
        limited = plan.end == HANGS and self.random.random() < 0.5
        if limited:
            request.spec.context.max_duration.FromSeconds(_SHORT_SECONDS)
        key = (("idempotency-key", f"create-{next(self._keys)}"),)
        made = await answered(lambda: self.client.executions.Create(request, metadata=key))
        if made.spec.session_id:
            sessions.append(made.spec.session_id)
        fate = self.random.random() if interfere else 1.0
        followed = Followed(
            made.metadata.id,
            plan,
            cancel_at=self.random.randrange(1, _EARLY) if (plan.end == HANGS and not limited) or fate < 0.1 else 0,
            pause_at=self.random.randrange(1, _EARLY) if 0.1 <= fate < 0.3 else 0,
        )
        self.executions.append(followed)
        self._begin(self._follow(followed))
        if len(self.executions) % 3 == 0:
            watcher = Watcher(self.client, followed.id, self.random)
            self.watchers.append(watcher)
            self._begin(watcher.follow())
        return followed

    async def settled(self, seconds: float) -> None:
        """Return when everybody who follows has seen the end. AssertionError, and what is stuck, after so long."""
        with self._impatient():
            async with asyncio.timeout(seconds):
                while self._tasks:
                    done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
                    for task in done:
                        task.result()

    async def conclude(self) -> dict[str, Story]:
        """End the server, and check all that was told against all that is on disk."""
        for runner in self.runners:
            await runner.stop()
        assert await self.server.terminate() == 0
        contents = self._check_folder()
        assert contents.executions.keys() == {each.id for each in self.executions}
        for watcher in self.watchers:
            assert bits(watcher.state) == bits(contents.executions[watcher.execution_id])
            self.tally["streams resumed"] += watcher.resumed
        stories = {}
        for each in self.executions:
            assert list(map(bits, each.log)) == list(map(bits, contents.logs[each.id])), each.told
            stories[each.id] = judge(each.log, cancelled=bool(each.cancel_at))
        assert not list(filter(self._is_unexpected_error, self.server.log)), "\n".join(self.server.log)
        broken = [runner.log for runner in self.runners if any(map(_is_unexpected, runner.log))]
        assert not broken, broken
        self._count(stories.values())
        return stories

    async def stop(self) -> None:
        """See that nothing is left, however the test went."""
        for runner in self.running:
            runner.strike()  # all of them before anything that could be interrupted
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self.runners:
            await runner.stop()

    def _count(self, stories: Any) -> None:  # noqa: ANN401  # the values of a dict
        self.tally["executions"] += len(self.executions)
        self.tally["changes"] += sum(len(each.log) for each in self.executions)
        for story in stories:
            self.tally["attempts"] += story.attempt
            self.tally["attempts lost"] += len(story.lost)
            self.tally["attempts returned"] += len(story.returned)
        _LOG.info("storm: %s", dict(self.tally))

    def _plan(self) -> Plan:
        return Plan(self.random.randrange(6, 30), self.random.choice(_ENDS))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    async def _until(self, holds: Callable[[], bool]) -> None:
        with self._impatient():
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not holds():
                    for task in self._tasks:
                        if task.done():
                            task.result()  # it has failed
                    self._news.clear()
                    await self._news.wait()

    @contextmanager
    def _impatient(self) -> Iterator[None]:
        """Tell of a TimeoutError what is stuck."""
        try:
            yield
        except TimeoutError:
            stuck = [each.told for each in self.executions if not each.ended]
            logs = [f"{runner.name}: {runner.log[-20:]}" for runner in self.running]
            raise AssertionError("\n".join(["stuck:", *stuck, *logs, *self.server.log])) from None

    def _over(self, task: asyncio.Task[None]) -> None:
        self._news.set()
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)  # one that failed stays, for `settled` to raise it

    async def _follow(self, followed: Followed) -> None:
        """Read the log to its end, losing the stream now and then, and have people do their part."""
        while not followed.ended:
            request = WatchAgentExecutionRequest(execution_id=followed.id, after_revision=len(followed.log))
            call = self.client.queries.Watch(request, wait_for_ready=True)
            self.tally["streams resumed"] += bool(followed.log)
            patience = self.random.randrange(1, 40)
            try:
                async for change in call:
                    assert change.revision == len(followed.log) + 1, followed.told
                    assert not (followed.log and followed.log[-1].terminal), followed.told
                    followed.log.append(change)
                    self._changes += 1
                    self._news.set()
                    self._interfere(followed, change)
                    patience -= 1
                    if patience == 0 and not change.terminal:
                        call.cancel()
                        break
                else:
                    assert followed.log[-1].terminal, followed.told
                    followed.ended = True
                    self._news.set()
            except aio.AioRpcError as error:
                if error.code() not in _SERVER_GONE:
                    raise

    def _interfere(self, followed: Followed, change: ExecutionChange) -> None:
        if change.status.phase == EXECUTION_WAITING_FOR_INPUT:
            self._begin(self._answer(followed.id, change.revision))
        if change.status.phase == EXECUTION_WAITING_FOR_APPROVAL and followed.plan.end == WANTS_APPROVAL:
            for call in change.status.tool_calls:
                self._begin(self._approve(followed.id, call.id))
        if change.status.audit.status_audit.event in RELEASES:
            self._begin(self._haunt(followed.id, change.attempt))
        if change.revision == followed.cancel_at:
            self._begin(self._cancel(followed.id))
        if change.revision == followed.pause_at:
            self._begin(self._pause_and_resume(followed.id))

    async def _answer(self, execution_id: str, revision: int) -> None:
        await self._hesitate()
        request = SubmitInputInput(execution_id=execution_id, message=f"answer to {revision}")
        key = (("idempotency-key", f"answer-{execution_id}-{revision}"),)
        await unless_too_late(lambda: self.client.executions.SubmitInput(request, metadata=key))

    async def _approve(self, execution_id: str, call_id: str) -> None:
        await self._hesitate()
        request = SubmitApprovalInput(
            agent_execution_id=execution_id, tool_call_id=call_id, action=APPROVAL_APPROVE, comment="go on"
        )
        await unless_too_late(lambda: self.client.executions.SubmitApproval(request))

    async def _haunt(self, execution_id: str, attempt: int) -> None:
        """Write as an attempt that is over, as a runner does whose last words were long on their way."""
        await self._hesitate()
        request = delta(execution_id, attempt=attempt, sequence=1_000_000)
        request.status.messages.add(id="ghost", content=str(Mark(1, attempt, "ghost")))
        refused = await refusal(answered(lambda: self.client.executions.UpdateStatus(request)))
        assert refused.reason in {"STALE_ATTEMPT", "EXECUTION_TERMINAL"}, refused.message
        self.tally["late writes refused"] += 1

    async def _cancel(self, execution_id: str) -> None:
        await self._hesitate()
        request = CancelAgentExecutionInput(id=execution_id, reason="enough")
        await unless_too_late(lambda: self.client.executions.Cancel(request))

    async def _pause_and_resume(self, execution_id: str) -> None:
        await self._hesitate()
        pause, resume = PauseAgentExecutionInput(id=execution_id), ResumeAgentExecutionInput(id=execution_id)
        await unless_too_late(lambda: self.client.executions.Pause(pause))
        await self._hesitate()
        await unless_too_late(lambda: self.client.executions.Resume(resume))
        self.tally["executions paused and resumed"] += 1

    async def _hesitate(self) -> None:
        await asyncio.sleep(self.random.random() * 0.3)

    def _is_unexpected_error(self, line: str) -> bool:
        return '"level": "error"' in line and not any(expected in line for expected in self.expected_errors)

    def _check_halfway(self) -> None:
        """After a kill: whatever anybody was told is on disk, and no execution is in a state that nobody ends."""
        contents = self._check_folder()
        for each in self.executions:
            stored = contents.logs[each.id][: len(each.log)]
            assert list(map(bits, stored)) == list(map(bits, each.log)), each.told
            Story().read(contents.logs[each.id])

    def _check_folder(self) -> Contents:
        contents = check_folder(self.server.data)
        check_leases(self.server.data)
        assert findings_of(self.server.data) == []
        return contents


def _is_unexpected(line: str) -> bool:
    """Whether a runner complains of more than an agent that failed as it was planned."""
    return line.startswith("ERROR") and not line.endswith(f"failed: {PLANNED}")


@asynccontextmanager
async def storm(
    data: Path,
    random: Random,
    *,
    runners: int,
    lease: float,
    runner_options: dict[str, Any] | None = None,
) -> AsyncIterator[Storm]:
    """Let a server and runners work for the length of the block."""
    settings = {"lease_duration": lease, "retry_backoff": 0.02, "cancel_grace": 2, "drain_timeout": 2}
    server = StormServer(data, **settings)
    try:
        await server.start()
        async with server.client() as client:
            made = Storm(server, client, random, **runner_options or {})
            try:
                await made.prepare(runners)
                yield made
            finally:
                await made.stop()
    finally:
        await server.stop()


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the server answers; one that is away is no reason to give up."""
    while True:
        try:
            return await call()
        except aio.AioRpcError as error:
            if error.code() not in _SERVER_GONE:
                raise
        await asyncio.sleep(0.02)


async def unless_too_late(call: Callable[[], Awaitable[object]]) -> None:
    """Call until the server answers; an execution that stands otherwise by now is an answer too."""
    try:
        await answered(call)
    except aio.AioRpcError as error:
        if error.code() not in (PRECONDITION, MISSING):  # the latter for a tool that does not ask any more
            raise
