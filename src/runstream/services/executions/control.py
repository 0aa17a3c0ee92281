"""Control: what is asked of an execution, recorded until it has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.times import to_timestamp
from runstream.services.executions.staging import author_of, new_change, next_head, stage_change
from runstream.v1.agent_execution_pb2 import CONTROL_ACTION_UNSPECIFIED, ExecutionControl
from runstream.v1.resource_pb2 import AuditActor

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.loading import Loaded
    from runstream.v1.agent_execution_pb2 import ControlAction


def new_control(
    context: RequestContext[Any, Any],
    action: ControlAction.ValueType = CONTROL_ACTION_UNSPECIFIED,
    reason: str = "",
) -> ExecutionControl:
    """Make the record of a request by the caller.

    Without an action it asks nothing, and takes back what was asked: the log keeps who did so, and why.
    """
    return ExecutionControl(
        action=action,
        reason=reason,
        requested_by=AuditActor(id=context.caller.actor),
        request_time=to_timestamp(context.now),
    )


def stage_control(
    context: RequestContext[Any, Any],
    loaded: Loaded,
    control: ExecutionControl,
    *,
    pause_withdrawn: bool = False,
) -> None:
    """Stage `control` in place of what was asked before; the phase stays.

    `pause_withdrawn`: that was a pause, with which the runner may still comply.
    """
    change = new_change(context, loaded, author_of(context.caller))
    change.control.CopyFrom(control)
    head = next_head(loaded)
    head.pause_withdrawn = pause_withdrawn
    if control.action:
        head.status.control.CopyFrom(control)
    else:
        head.status.ClearField("control")
    stage_change(context, loaded, change, head)
