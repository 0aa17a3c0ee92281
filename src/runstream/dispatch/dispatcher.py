"""The dispatcher: gives queued executions to runners that have places, and takes back what dead runners held.

It decides on views of what is on disk, which every commit corrects: the queue, the occupancy, the runners. What it
decides is a command like any other, so an execution that has changed meanwhile is left alone. Nothing is polled.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

import structlog

from runstream.dispatch.agent_rules import rules_of
from runstream.dispatch.backoff import backoff_seconds
from runstream.dispatch.deadlines import RETRY_SECONDS, Deadlines
from runstream.dispatch.dispatch_counts import DispatchCounts
from runstream.dispatch.occupancy import Occupancy
from runstream.dispatch.queue import Candidate, Queue
from runstream.dispatch.runners import Offers, Runners
from runstream.model.errors import FailedPrecondition, NotFound, Unavailable
from runstream.model.phases import WAITING
from runstream.storage.records import AGENT, AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Conflict, Query, Term, Transaction
from runstream.stored.v1.stored_pb2 import LEASE_STEP_ASSIGN, LEASE_STEP_LOSE, LEASE_STEP_RETURN, LeaseCommand
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_RUNNER,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from runstream.dispatch.agent_rules import AgentRules
    from runstream.dispatch.runners import Holding, Runner
    from runstream.model.clock import Clock
    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.runner_pb2 import Held

_LOG = structlog.get_logger(__name__)

_AT_WORK: Final = WAITING | {EXECUTION_IN_PROGRESS}
#: What stands as the event in the audit of an execution that has just lost its runner: it waits before it is queued.
LOST_EVENT: Final = "runner_lost"
#: How many lease commands are under way at once: enough for commits to share their syncs.
_AT_ONCE: Final = 64
_SCAN_CHUNK: Final = 1_000
#: How often in a row an assignment may get lost on its way before that counts as a lost attempt, backoff and all.
_UNDELIVERED_AT_MOST: Final = 3


class LeaseChanger(Protocol):
    """Commits a change of an execution's lease."""

    def __call__(self, command: LeaseCommand, /) -> Awaitable[object]:
        """Return when it is on disk. A step that does not fit the execution any more is refused or does nothing."""
        ...


class Dispatcher:
    """Hands executions to runners."""

    def __init__(  # noqa: PLR0913  # each is a part it is made of
        self,
        store: Store,
        clock: Clock,
        change_lease: LeaseChanger,
        *,
        lease_seconds: float,
        backoff: float,
        random: Callable[[], float],
    ) -> None:
        self._store = store
        self._clock = clock
        self._change_lease = change_lease
        self._lease_seconds = lease_seconds
        self._backoff = backoff
        self._random = random
        self.runners = Runners(clock, lease_seconds)
        self.counts = DispatchCounts()
        self._queue = Queue(clock.monotonic)
        self._occupancy = Occupancy()
        self._agents: dict[str, AgentRules | None] = {}
        self._leases = Deadlines(clock, self._lease_due, of="runner")
        self._delays = Deadlines(clock, self._delay_over)
        self._delayed: dict[str, Candidate] = {}
        #: Executions being assigned.
        self._assigning: dict[str, asyncio.Task[None]] = {}
        self._flag = asyncio.Event()
        #: Until when nothing is assigned, since the store has just refused.
        self._rests_until = 0.0
        #: How often in a row an execution came back from a runner that never knew of it.
        self._undelivered: dict[str, int] = {}

    async def resume(self) -> None:
        """Take up what is at work, with a fresh lease for every runner. What is PENDING follows while `run` runs."""
        for phase in sorted(_AT_WORK):
            async for execution_id, head in self._heads(phase):
                self._observe(execution_id, head, told=True)
        for runner in self.runners:
            self.renew(runner.id)

    async def run(self) -> None:
        """Assign what can be assigned, whenever something changes; until cancelled."""
        timers = [asyncio.create_task(deadlines.run()) for deadlines in (self._leases, self._delays)]
        try:
            await self._until_it_works(self._take_up_pending)
            while True:
                self._flag.clear()
                await self._until_it_works(self._assign_all)
                rest = self._rests_until - self._clock.monotonic()
                await self._clock.wait(self._flag, rest if rest > 0 else None)
        finally:
            under_way = [*timers, *self._assigning.values()]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _until_it_works(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a piece of work, again after a rest when it fails: nothing is assigned without it."""
        while True:
            try:
                return await work()
            except Exception:  # noqa: BLE001  # whatever it was
                _LOG.exception("dispatch_failed")
            await self._clock.wait(asyncio.Event(), RETRY_SECONDS)

    async def _take_up_pending(self) -> None:
        async for execution_id, head in self._heads(EXECUTION_PENDING):
            self._observe(execution_id, head, told=True)

    def on_commit(self, transaction: Transaction) -> None:
        """Correct the views by what was committed."""
        if transaction.in_place and not self._concerns_runners(transaction):
            return
        # A runner knows what it reports itself, but not what was decided at once when it asked.
        by_runner = {change.execution_id for change in transaction.changes if change.author == CHANGE_AUTHOR_RUNNER}
        for (kind, record_id), message in transaction.puts.items():
            if kind is EXECUTION_HEAD:
                head = cast("ExecutionHead", message)
                decided = any(known.approval.action for known in head.approvals)
                reported = record_id in by_runner
                self._observe(record_id, head, told=reported and not decided, reported=reported)
            elif kind is AGENT and record_id in self._agents:
                self._agents[record_id] = rules_of(cast("Agent", message))
                self._queue.unpark_all(record_id)
                self.wake()
        for kind, record_id in transaction.deletes:
            if kind is EXECUTION_HEAD:
                self._forget(record_id)
            elif kind is AGENT:
                self._agents.pop(record_id, None)

    def _concerns_runners(self, transaction: Transaction) -> bool:
        """Tell whether a transaction touches more than executions that no runner holds."""
        for (kind, record_id), message in transaction.puts.items():
            if kind is AGENT or (kind is EXECUTION_HEAD and (message.runner_id or self.runners.holds(record_id))):
                return True
        return False

    def wake(self) -> None:
        """Have the dispatcher look whether something can be assigned."""
        self._flag.set()

    def renew(self, runner_id: str) -> Runner:
        """Begin the lease of a runner anew: it is alive now."""
        runner = self.runners.renew(runner_id)
        self._leases.add(runner_id, self._lease_seconds)
        self.wake()
        return runner

    def hear(self, runner: Runner, named: Held) -> None:
        """Take note of what a runner names; what only waits for its sub-executions gives its places away.

        That of its runner, and that of its agent: else an agent that delegates to itself could wait for ever.
        """
        holder = (named.execution_id, runner.id, named.attempt)
        freed = self.runners.note_named(*holder, for_children=named.waiting)
        if self.runners.holding(*holder) is not None:
            freed |= self._occupancy.set_aside(named.execution_id, waits=named.waiting)
        if freed:
            self.wake()

    async def take_back(self, runner: Runner, held: Iterable[str], *, lost: bool | None = None) -> None:
        """Take executions back from a runner; by themselves they count as lost if the runner ever named them.

        On disk when this returns. Raises what the first that failed raised, after all were tried.
        """
        slots = asyncio.Semaphore(_AT_ONCE)

        async def take(execution_id: str) -> None:
            holding = runner.held.get(execution_id)
            if holding is None:
                return
            counts = self._counts(execution_id, holding) if lost is None else lost
            command = LeaseCommand(
                execution_id=execution_id,
                runner_id=runner.id,
                attempt=holding.attempt,
                step=LEASE_STEP_LOSE if counts else LEASE_STEP_RETURN,
            )
            async with slots:
                await self._change_lease(command)
            self.counts.lost += counts
            self.counts.returned += not counts

        results = await asyncio.gather(*(take(execution_id) for execution_id in list(held)), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:  # the others are on disk; whoever asks again goes on with what is left
            raise failed[0]

    def _counts(self, execution_id: str, holding: Holding) -> bool:
        """Tell whether what comes back was lost: if the runner knew of it, or if it never arrives anywhere."""
        if holding.named:
            return True
        times = self._undelivered[execution_id] = self._undelivered.get(execution_id, 0) + 1
        return times >= _UNDELIVERED_AT_MOST

    @property
    def queued(self) -> int:
        """How many executions wait for a runner, those that wait for their next attempt included."""
        return len(self._queue) + len(self._delayed)

    @property
    def delayed(self) -> int:
        """How many of them wait until the time of their next attempt has come."""
        return len(self._delayed)

    @property
    def longest_wait(self) -> float:
        """How many seconds the execution that waits longest has been queued, by this process; 0 when none is."""
        return self._queue.longest_wait

    def _observe(self, execution_id: str, head: ExecutionHead, *, told: bool, reported: bool = False) -> None:
        status = head.status
        for_person = status.phase in WAITING
        holder = (execution_id, head.runner_id, status.attempt)
        as_before = self.runners.knows(*holder, for_person=for_person)
        if not (as_before and told):
            self.runners.note(*holder, for_person=for_person, told=told)
        if reported:
            self._undelivered.pop(execution_id, None)
            self.runners.note_named(*holder)
        if as_before:
            return  # a report like most: nobody has a place more or less
        if head.runner_id and self._leases.remaining(head.runner_id) is None:
            # Assigned while its lease ended, or taken up from disk: nothing is held without an end in sight.
            self._leases.add(head.runner_id, self.runners.seconds_left(head.runner_id))
        candidate = Candidate(execution_id, head.agent_id, head.session_id, head.parent_id)
        if status.phase == EXECUTION_PENDING:
            self._enqueue(candidate, head)
        else:
            self._queue.discard(execution_id)
            self._end_delay(execution_id)
            if status.phase in _AT_WORK:
                holding = self.runners.holding(*holder)
                takes_place = holding is not None and not holding.for_children
                self._occupancy.enter(candidate, takes_place=takes_place)
            else:
                self._undelivered.pop(execution_id, None)
                self._leave(execution_id)
        self.wake()

    def _enqueue(self, candidate: Candidate, head: ExecutionHead) -> None:
        if candidate.id in self._assigning or candidate.id in self._delayed:
            return
        # While it waits for its next attempt, it keeps its place in its session.
        if candidate.id not in self._queue and head.status.audit.status_audit.event == LOST_EVENT:
            self._occupancy.enter(candidate, takes_place=False)
            self._delay(candidate, backoff_seconds(head.lost_attempts, self._backoff, self._random))
            return
        self._leave(candidate.id)
        self._queue.add(candidate)

    def _delay(self, candidate: Candidate, seconds: float) -> None:
        self._delayed[candidate.id] = candidate
        self._delays.add(candidate.id, seconds)

    def _end_delay(self, execution_id: str) -> Candidate | None:
        self._delays.remove(execution_id)
        return self._delayed.pop(execution_id, None)

    async def _delay_over(self, execution_id: str) -> None:
        candidate = self._end_delay(execution_id)
        if candidate is not None:
            self._leave(execution_id)
            self._queue.add(candidate)
            self.wake()

    def _leave(self, execution_id: str) -> None:
        session_id = self._occupancy.leave(execution_id)
        if session_id:
            self._queue.unpark(session_id, every=self._occupancy.is_busy(session_id))

    def _forget(self, execution_id: str) -> None:
        self._undelivered.pop(execution_id, None)
        self.runners.note(execution_id, "", 0, for_person=False, told=False)
        self._queue.discard(execution_id)
        self._end_delay(execution_id)
        self._leave(execution_id)
        self.wake()

    async def _assign_all(self) -> None:
        """Begin to assign whatever there is a place for."""
        while self._queue and len(self._assigning) < _AT_ONCE and self._clock.monotonic() >= self._rests_until:
            free = [runner for runner in self.runners if runner.places > 0]
            if not free:
                return
            for agent_id in self._queue.agents:
                if agent_id not in self._agents:
                    agent = await self._store.durable.shared(AGENT, agent_id)
                    self._agents[agent_id] = None if agent is None else rules_of(agent)
            offers = Offers(free)
            candidate = self._queue.take(partial(self._is_served, offers), self._is_busy)
            runner = None if candidate is None else self._runner_for(candidate.agent_id, offers)
            if candidate is None or runner is None:
                return
            self._begin_assigning(candidate, runner)

    def _begin_assigning(self, candidate: Candidate, runner: Runner) -> None:
        runner.reserved += 1
        self._occupancy.enter(candidate, takes_place=True)
        if candidate.session_id:
            self._queue.unpark_beside(candidate)
        task = asyncio.create_task(self._assign(candidate, runner))
        self._assigning[candidate.id] = task

    async def _assign(self, candidate: Candidate, runner: Runner) -> None:
        failed = False
        try:
            command = LeaseCommand(execution_id=candidate.id, runner_id=runner.id, step=LEASE_STEP_ASSIGN)
            await self._change_lease(command)
            self.counts.assigned += 1
        except (NotFound, FailedPrecondition):
            pass  # it has ended, was paused, or somebody else works on it
        except Unavailable:
            failed = True  # the store does not take it: nor would it take the next one
            self._rests_until = self._clock.monotonic() + RETRY_SECONDS
        except Exception:  # noqa: BLE001  # whatever it was, it must be tried again
            _LOG.exception("assignment_failed", execution_id=candidate.id)
            failed = True
        finally:
            del self._assigning[candidate.id]
            runner.reserved -= 1
        await self._settle(candidate, failed=failed)

    async def _settle(self, candidate: Candidate, *, failed: bool) -> None:
        """See how an execution stands after an assignment: commits meanwhile were not fully heard."""
        try:
            head = await self._store.durable.shared(EXECUTION_HEAD, candidate.id)
        except Exception:  # noqa: BLE001  # it is looked at again; nothing else knows of it now
            _LOG.exception("assignment_unsettled", execution_id=candidate.id)
            self._delay(candidate, RETRY_SECONDS)
            return
        if head is None:
            self._forget(candidate.id)
        elif failed and head.status.phase == EXECUTION_PENDING:
            self._delay(candidate, RETRY_SECONDS)
        elif head.status.phase == EXECUTION_PENDING or not head.runner_id:
            self._observe(candidate.id, head, told=True)
        self.wake()

    def _is_served(self, offers: Offers, agent_id: str) -> bool:
        return self._runner_for(agent_id, offers) is not None

    def _runner_for(self, agent_id: str, offers: Offers) -> Runner | None:
        """Return the runner with the most free places for an agent; None when the agent has reached its limit."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return None
        if agent.most_at_once and self._occupancy.taken(agent_id) >= agent.most_at_once:
            return None
        return offers.best_for(agent)

    def _is_busy(self, candidate: Candidate) -> bool:
        agent = self._agents.get(candidate.agent_id)
        parallel = agent is not None and agent.concurrent_in_session
        return bool(candidate.session_id) and not parallel and self._occupancy.must_wait(candidate)

    async def _lease_due(self, runner_id: str) -> None:
        """Take back what a runner held, if its lease has ended."""
        runner = self.runners.get(runner_id)
        if runner is None:
            return
        left = self.runners.seconds_left(runner_id)
        if left > 0:  # renewed while an earlier end was being tried again
            self._leases.add(runner_id, left)
            return
        runner.expired = True
        if runner.held:
            self.counts.runners_lost += 1
            _LOG.warning("runner_lost", runner=runner_id, executions=len(runner.held))
        await self.take_back(runner, runner.held, lost=True)
        self.runners.forget(runner)

    async def _complete(self, execution_id: str, head: ExecutionHead) -> ExecutionHead | None:
        """Write agent and session into a head from before there was dispatch; return the head as it then is."""
        record = await self._store.durable.get(AGENT_EXECUTION, execution_id)
        if record is None:
            return None
        head.agent_id, head.session_id = record.spec.agent_id, record.spec.session_id
        transaction = Transaction()
        transaction.expect(EXECUTION_HEAD, execution_id, head.revision)
        transaction.put(EXECUTION_HEAD, execution_id, head)
        with suppress(Conflict):
            await self._store.commit(transaction)
        return await self._store.durable.get(EXECUTION_HEAD, execution_id)

    async def _heads(self, phase: int) -> AsyncGenerator[tuple[str, ExecutionHead], None]:
        query, after = Query(AGENT_EXECUTION, ((Term("phase", str(phase)),),)), None
        while ids := await self._store.scan(query, after=after, limit=_SCAN_CHUNK):
            for execution_id in ids:
                head = await self._store.durable.get(EXECUTION_HEAD, execution_id)
                while head is not None and not head.agent_id:
                    head = await self._complete(execution_id, head)
                if head is not None and head.status.phase == phase:
                    yield execution_id, head
            after = ids[-1]
            await asyncio.sleep(0)
