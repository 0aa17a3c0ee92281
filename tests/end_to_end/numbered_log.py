"""Judges the log of an execution of numbered work: one end, one writer at a time, every step once and in its place."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import plyvel

from runstream.dispatch.dispatcher import LOST_EVENT
from runstream.model.phases import WAITING, is_terminal, phase_name
from runstream.storage import keys
from runstream.storage.records import EXECUTION_HEAD
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_RUNNER,
    CHANGE_AUTHOR_SYSTEM,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    MESSAGE_HUMAN,
)
from tests.end_to_end.folder_check import fold_of
from tests.end_to_end.numbered import FAILS, HANGS, PLANNED, Mark, Plan, marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange

#: What stands in the audit of a change that ends an attempt which its runner has not ended.
RELEASES = {LOST_EVENT, "returned"}


@dataclass(slots=True)
class Story:
    """What a log tells."""

    #: The attempt that is current, and whether a runner holds it.
    attempt: int = 0
    leased: bool = False
    #: What has been done since everything was begun from the beginning.
    done: list[Mark] = field(default_factory=list)
    #: The processes that have written, by attempt.
    writers: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    #: The attempts whose runner was lost, and those that were given back.
    lost: set[int] = field(default_factory=set)
    returned: set[int] = field(default_factory=set)
    #: What people said, and the usage that was reported: nothing drops that.
    said: list[str] = field(default_factory=list)
    spent: set[str] = field(default_factory=set)

    def read(self, log: Iterable[ExecutionChange]) -> Story:
        """Read changes; AssertionError for one that breaks the fence, or the order of steps."""
        for change in log:
            try:
                self._take(change)
            except AssertionError as error:
                raise AssertionError(f"{error}\nattempt {self.attempt}, leased {self.leased}, at {change}") from None
        return self

    def _take(self, change: ExecutionChange) -> None:
        status = change.status
        if change.supersedes:
            assert change.supersedes == self.attempt, "something of an earlier attempt stays"
            self.done.clear()
        if status.attempt:
            assert change.author == CHANGE_AUTHOR_SYSTEM, "an attempt that the server did not begin"
            assert not self.leased, "an attempt begins while another one holds the lease"
            assert status.attempt == self.attempt + 1, "attempts are counted one by one"
            assert status.phase == EXECUTION_IN_PROGRESS
            self.attempt, self.leased = status.attempt, True
        assert change.attempt == self.attempt
        if change.author == CHANGE_AUTHOR_RUNNER:
            assert self.leased, "written by a runner while none holds it"
            self._take_marks(marks(status))
        self.said += [message.content for message in status.messages if message.type == MESSAGE_HUMAN]
        self.spent |= {entry.id for entry in status.usage}
        self._take_release(change)

    def _take_marks(self, found: list[Mark]) -> None:
        for mark in found:
            assert mark.attempt == self.attempt, f"{mark} was written behind the fence"
            assert mark.step == len(self.done) + 1, f"{mark} comes after {self.done}"
            self.done.append(mark)
            self.writers[mark.attempt].add(mark.by)

    def _take_release(self, change: ExecutionChange) -> None:
        status, event = change.status, change.status.audit.status_audit.event
        if event in RELEASES:
            assert self.leased
            (self.lost if event == LOST_EVENT else self.returned).add(self.attempt)
        if event in RELEASES or status.phase in (EXECUTION_PENDING, EXECUTION_PAUSED) or change.terminal:
            self.leased = False


def judge(log: list[ExecutionChange], *, cancelled: bool = False) -> Story:
    """Check the log of an execution that has ended; `cancelled`: somebody has asked for that."""
    assert [change.revision for change in log] == list(range(1, len(log) + 1))
    assert [change.terminal for change in log] == [False] * (len(log) - 1) + [True]
    assert [is_terminal(change.status.phase) for change in log] == [change.terminal for change in log]
    story, state = Story().read(log), fold_of(log)
    assert not story.leased
    assert all(len(names) == 1 for names in story.writers.values()), f"two wrote as one attempt: {story.writers}"
    status = state.status
    assert sorted(marks(status), key=lambda mark: mark.step) == story.done
    assert [message.content for message in status.messages if message.type == MESSAGE_HUMAN] == story.said
    assert {entry.id for entry in status.usage} == story.spent
    _check_end(state, story, cancelled=cancelled)
    return story


def _check_end(state: AgentExecution, story: Story, *, cancelled: bool) -> None:
    """It has ended as it was planned, having done all that was planned; or as it was asked to."""
    plan, status = Plan.of(state.spec.message), state.status
    told = f"{plan} ended as {phase_name(status.phase)}, {status.reason}: {status.error}, after {story.done}"
    if status.phase == EXECUTION_CANCELLED:
        assert cancelled, told
        return
    if status.reason == "DEADLINE_EXCEEDED":
        assert state.spec.context.HasField("max_duration"), told
        assert status.phase == EXECUTION_FAILED, told
        return
    assert plan.end != HANGS, told
    assert len(story.done) == plan.steps, told
    if plan.end == FAILS:
        assert (status.phase, status.reason) == (EXECUTION_FAILED, PLANNED), told
    else:
        assert status.phase == EXECUTION_COMPLETED, told


def check_leases(folder: Path) -> Mapping[str, ExecutionHead]:
    """Check that each execution has ended, is queued, waits or is paused, or is leased. There is no fifth state."""
    heads = _heads(folder)
    for execution_id, head in heads.items():
        phase, told = head.status.phase, f"{execution_id}: {head}"
        assert not head.driven_outside, told
        if phase == EXECUTION_IN_PROGRESS:
            assert head.runner_id, told
            assert head.status.attempt > 0, told
        elif phase not in WAITING:
            assert is_terminal(phase) or phase in (EXECUTION_PENDING, EXECUTION_PAUSED), told
            assert not head.runner_id, told
    return heads


def _heads(folder: Path) -> dict[str, ExecutionHead]:
    database = plyvel.DB(str(folder / "leveldb"), create_if_missing=False)
    prefix = keys.records(EXECUTION_HEAD)
    try:
        with database.iterator(prefix=prefix) as pairs:
            return {
                keys.decode_id(key[len(prefix) :]): EXECUTION_HEAD.message.FromString(value) for key, value in pairs
            }
    finally:
        database.close()
