"""Directives: what is asked of a runner, read off the head of an execution that it holds.

They are a function of the state, not events: whoever asks again is told again what is not done yet, and nothing is ever
queued for a runner that does not listen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from runstream.dispatch.dispatcher import LOST_EVENT
from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import CONTROL_CANCEL, CONTROL_PAUSE, EXECUTION_TERMINATED
from runstream.v1.runner_pb2 import (
    ApprovalCommand,
    CancelCommand,
    InputCommand,
    LostCommand,
    PauseCommand,
    RunnerCommand,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentMessage

#: What tells one directive from the next of the same execution: its kind, and a mark that changes when it is a new one.
Mark: TypeAlias = tuple[str, str]


def is_held(head: ExecutionHead | None, runner_id: str, attempt: int) -> bool:
    """Tell whether a runner holds an execution as this attempt."""
    return head is not None and head.runner_id == runner_id and head.status.attempt == attempt


def lost(execution_id: str, attempt: int, head: ExecutionHead | None) -> RunnerCommand:
    """Tell a runner that it does not hold an execution any more, and why."""
    return RunnerCommand(lost=LostCommand(execution_id=execution_id, attempt=attempt, reason=_why(head, attempt)))


def outstanding(execution_id: str, head: ExecutionHead, *, taken: int = 0) -> Iterator[tuple[Mark, RunnerCommand]]:
    """Yield what is asked of the holder of an execution and not done yet; `taken` is the newest input it has.

    An input comes without its message, which `complete` reads from the log.
    """
    attempt, control = head.status.attempt, head.status.control
    if control.action == CONTROL_CANCEL:
        cancel = CancelCommand(
            execution_id=execution_id,
            attempt=attempt,
            reason=control.reason,
            grace=control.grace,
            deadline_exceeded=control.deadline_exceeded,
        )
        yield ("cancel", str(control.request_time)), RunnerCommand(cancel=cancel)
    elif control.action == CONTROL_PAUSE:
        pause = PauseCommand(execution_id=execution_id, attempt=attempt, reason=control.reason)
        yield ("pause", str(control.request_time)), RunnerCommand(pause=pause)
    for known in head.approvals:
        if known.approval.action:
            approval = ApprovalCommand(
                execution_id=execution_id,
                attempt=attempt,
                tool_call_id=known.tool_call_id,
                action=known.approval.action,
                comment=known.approval.comment,
                decided_by=known.approval.decided_by,
                decide_time=known.approval.decide_time,
            )
            decided = known.approval.decide_time.ToNanoseconds()
            yield ("approval", f"{decided} {known.tool_call_id}"), RunnerCommand(approval=approval)
    if head.input_revision > taken:
        answer = InputCommand(execution_id=execution_id, attempt=attempt, revision=head.input_revision)
        yield ("input", str(head.input_revision)), RunnerCommand(input=answer)


async def complete(store: Store, command: RunnerCommand) -> RunnerCommand:
    """Read the message of an input from the log; leave every other command as it is."""
    if command.WhichOneof("command") == "input":
        change = await store.durable.change(command.input.execution_id, command.input.revision)
        if change is not None:
            said: list[AgentMessage] = list(change.status.messages)
            if said:
                command.input.message.CopyFrom(said[-1])
    return command


def _why(head: ExecutionHead | None, attempt: int) -> str:
    """Say as a stable code why an attempt is over."""
    if head is None:
        return "DELETED"
    if is_terminal(head.status.phase):
        return "TERMINATED" if head.status.phase == EXECUTION_TERMINATED else "ENDED"
    if head.status.attempt != attempt:
        return "SUPERSEDED"
    return "LEASE_EXPIRED" if head.status.audit.status_audit.event == LOST_EVENT else "DETACHED"
