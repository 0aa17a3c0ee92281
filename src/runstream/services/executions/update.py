"""Update: new metadata and spec for an execution; its status is untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.model.errors import FailedPrecondition, invalid_field
from runstream.model.phases import is_terminal, phase_name
from runstream.model.views import redact_secrets
from runstream.pipeline.context import ContextKey
from runstream.pipeline.resources import common_terms
from runstream.pipeline.steps import (
    audit_update,
    check_revision,
    keep_fixed_fields,
    keep_identity,
)
from runstream.services.executions.inheritance import SHARED, context_within, restrict_tools
from runstream.services.executions.loading import LOADED, load_record
from runstream.services.executions.staging import new_change, next_head, stage_change
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_SECRETS
from runstream.stored.v1.stored_pb2 import ExecutionSecrets
from runstream.v1.agent_execution_pb2 import CHANGE_AUTHOR_USER, AgentExecution, ExecutionContext

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.loading import Loaded

    UpdateContext = RequestContext[AgentExecution, AgentExecution]

FIXED = (
    "metadata.org",
    "metadata.slug",
    "spec.session_id",
    "spec.agent_id",
    "spec.context.stateless",
    "spec.context.parent_execution_id",
    "spec.context.parent_call_id",
    "spec.context.parent_attempt",
)

#: The record as it was.
RECORD: ContextKey[AgentExecution] = ContextKey("record")
_SECRETS: ContextKey[dict[str, str]] = ContextKey("secrets of the request")


def id_of_resource(request: AgentExecution) -> str:
    """Return the id in the request's metadata; INVALID_ARGUMENT without one."""
    if not request.metadata.id:
        raise invalid_field("metadata.id", "ID_REQUIRED", "must be given")
    return request.metadata.id


class CheckRevision:
    """Compares the revision that the request was decided on. ABORTED, reason REVISION_CONFLICT."""

    async def __call__(self, context: UpdateContext) -> None:
        """Check the request."""
        loaded = context.value(LOADED)
        check_revision(loaded.id, context.request.metadata.revision, loaded.head.revision)


class BuildUpdatedExecution:
    """Makes the new record: the request's metadata and spec, with what cannot change carried over.

    A request without a spec keeps the spec. INVALID_ARGUMENT, reason IMMUTABLE_FIELD.
    """

    async def __call__(self, context: UpdateContext) -> None:
        """Set the state; the secrets of the request stay out of it."""
        existing = await load_record(context, context.value(LOADED))
        context.put(RECORD, existing)
        state = AgentExecution()
        state.CopyFrom(context.request)
        state.DiscardUnknownFields()
        if not state.HasField("spec"):
            state.spec.CopyFrom(existing.spec)
        keep_fixed_fields(existing, state, _fixed_fields(existing))
        keep_identity(existing, state)
        _keep_bounds(existing, state)
        if is_terminal(context.value(LOADED).phase):
            _keep_what_is_left_out(existing, state)
        _keep_outputs(existing, state)
        context.put(_SECRETS, redact_secrets(state))
        context.state = state


class RefuseFinished:
    """Lets a finished execution take new labels and tags only. FAILED_PRECONDITION, reason EXECUTION_TERMINAL."""

    async def __call__(self, context: UpdateContext) -> None:
        """Compare the state with what exists."""
        loaded = context.value(LOADED)
        if not is_terminal(loaded.phase):
            return
        changes_secrets = any(context.value(_SECRETS).values())
        if changes_secrets or _without_labels(context.state) != _without_labels(context.value(RECORD)):
            raise FailedPrecondition(
                "EXECUTION_TERMINAL",
                f"Execution {loaded.id} has ended ({phase_name(loaded.phase)}): only its labels and"
                " tags can still change.",
                metadata={"id": loaded.id, "phase": phase_name(loaded.phase)},
            )


class StageUpdatedExecution:
    """Stages the new record, its secrets, the change, the head, and the index entries that differ."""

    async def __call__(self, context: UpdateContext) -> None:
        """Add the update to the transaction."""
        loaded, state = context.value(LOADED), context.state
        await _stage_secrets(context, loaded)
        change = new_change(context, loaded, CHANGE_AUTHOR_USER)
        head = next_head(loaded)
        audit_update(head.status.audit.spec_audit, context, "updated")
        state.metadata.revision = head.revision
        change.updated.CopyFrom(state)
        change.updated.status.audit.spec_audit.CopyFrom(head.status.audit.spec_audit)
        change.terminal = is_terminal(loaded.phase)
        context.transaction.put(AGENT_EXECUTION, loaded.id, state)
        context.transaction.index(
            AGENT_EXECUTION,
            loaded.id,
            before=common_terms(context.value(RECORD).metadata),
            after=common_terms(state.metadata),
        )
        stage_change(context, loaded, change, head)


async def _stage_secrets(context: UpdateContext, loaded: Loaded) -> None:
    """Keep the stored value of a secret that the request names without a value; drop those it does not name."""
    if is_terminal(loaded.phase):
        return
    stored = await context.get(EXECUTION_SECRETS, loaded.id)
    old = dict(stored.values) if stored is not None else {}
    new = {name: value or old.get(name, "") for name, value in context.value(_SECRETS).items()}
    if new:
        context.transaction.put(EXECUTION_SECRETS, loaded.id, ExecutionSecrets(values=new))
    else:
        context.transaction.delete(EXECUTION_SECRETS, loaded.id)


def _keep_what_is_left_out(existing: AgentExecution, state: AgentExecution) -> None:
    """Let an update of a finished execution name its labels and tags alone."""
    before, after = existing.metadata, state.metadata
    if not after.annotations:
        after.annotations.update(before.annotations)
    if not after.HasField("version") and before.HasField("version"):
        after.version.CopyFrom(before.version)
    after.owner_scope = after.owner_scope or before.owner_scope
    if state.spec.context.allowed_tools and not existing.spec.context.only_allowed_tools:
        state.spec.context.ClearField("only_allowed_tools")  # it ended before there was this field


def _keep_bounds(existing: AgentExecution, state: AgentExecution) -> None:
    """Let a sub-execution have in nothing more than it had; its parent may be gone, what it had is not."""
    before = existing.spec.context
    if before.parent_execution_id:
        state.spec.context.CopyFrom(context_within(state.spec.context, before))
    elif state.spec.HasField("context"):
        restrict_tools(state.spec.context)


def _fixed_fields(existing: AgentExecution) -> tuple[str, ...]:
    """Return the paths that stay as they are; a sub-execution is for whom its parent is, too."""
    if not existing.spec.context.parent_execution_id:
        return FIXED
    return (*FIXED, *(f"spec.context.{name}" for name in SHARED))


def _keep_outputs(existing: AgentExecution, state: AgentExecution) -> None:
    """Carry over what the server alone says."""
    before, after = existing.spec.context, state.spec.context
    if state.spec.HasField("context"):
        for name in ("root_execution_id", "deadline", "depth"):
            after.ClearField(name)
    outputs = ExecutionContext(root_execution_id=before.root_execution_id, depth=before.depth)
    if before.HasField("deadline"):
        outputs.deadline.CopyFrom(before.deadline)
    if outputs.ListFields():
        after.MergeFrom(outputs)


def _without_labels(record: AgentExecution) -> AgentExecution:
    bare = AgentExecution()
    bare.CopyFrom(record)
    for name in ("labels", "tags", "revision"):
        bare.metadata.ClearField(name)
    return bare
