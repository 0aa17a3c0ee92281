"""Heads: what the log says of them, and which lease goes with which phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.care.findings import Code
from runstream.model.phases import is_terminal
from runstream.model.views import basic_status
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import EXECUTION_IN_PROGRESS, EXECUTION_PAUSED, EXECUTION_PENDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.care.log import Log


def expected_head(head: ExecutionHead, log: Log) -> ExecutionHead:
    """Return a head with everything that can be derived: by its log, if that is whole, and by its phase."""
    expected = ExecutionHead()
    expected.CopyFrom(head)
    if log.whole:
        _follow_log(expected, log)
    phase = expected.status.phase
    # PENDING is queued, PAUSED waits for a person: a lease is for work alone.
    if is_terminal(phase) or phase in (EXECUTION_PENDING, EXECUTION_PAUSED):
        expected.ClearField("runner_id")
        expected.ClearField("driven_outside")
    return expected


def differing(head: ExecutionHead, expected: ExecutionHead) -> set[str]:
    """Return the names of the fields in which two heads differ."""
    return {
        field.name
        for field in ExecutionHead.DESCRIPTOR.fields
        if getattr(head, field.name) != getattr(expected, field.name)
        or (field.has_presence and head.HasField(field.name) != expected.HasField(field.name))  # type: ignore[arg-type]
    }


def check_lease(head: ExecutionHead) -> Iterator[tuple[Code, str]]:
    """Yield what is wrong with who works on an execution, as code and words."""
    status = head.status
    if status.phase == EXECUTION_IN_PROGRESS and not head.runner_id and not head.driven_outside:
        yield Code.WORK_WITHOUT_LEASE, "it is at work, and nobody has it"
    if head.runner_id and not status.attempt:
        yield Code.LEASE_WITHOUT_ATTEMPT, f"runner {head.runner_id} has it, and no attempt was begun"


def _follow_log(head: ExecutionHead, log: Log) -> None:
    spec = log.state.spec
    head.status.CopyFrom(basic_status(log.state.status))
    head.log_bytes = log.size
    head.agent_id, head.session_id = spec.agent_id, spec.session_id
    head.parent_id = spec.context.parent_execution_id
    head.may_have_open_items = head.may_have_open_items or log.reported_items
    if spec.context.HasField("deadline"):
        head.deadline.CopyFrom(spec.context.deadline)
    else:
        head.ClearField("deadline")
