"""The steps that commands on resources of every type share. Each is one line of a command's list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message

from runstream.model.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    invalid_field,
    not_found,
)
from runstream.model.ids import ulid_millis
from runstream.model.slugs import slugify_name
from runstream.model.times import from_millis
from runstream.pipeline.context import ContextKey
from runstream.pipeline.engine import Step, run_inner
from runstream.pipeline.resources import API_VERSION, R, ResourceType, envelope
from runstream.pipeline.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.storage.store import Term
    from runstream.v1.resource_pb2 import Audit, AuditInfo

F = TypeVar("F", bound=Message)

NAME: ContextKey[str] = ContextKey("name")
SLUG: ContextKey[str] = ContextKey("slug")
#: The resource as it was before the command; left by whatever loads it.
EXISTING: ContextKey[Any] = ContextKey("existing")

_COUNT_LIMIT = 10_000


class ValidateFieldConstraints:
    """Checks the rules written in the proto. INVALID_ARGUMENT with every violation."""

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Check the request."""
        validate(context.request)


class RequireName:
    """Demands `metadata.name`. INVALID_ARGUMENT, reason NAME_REQUIRED."""

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Check the request."""
        if not envelope(context.request).metadata.name.strip():
            raise invalid_field("metadata.name", "NAME_REQUIRED", "must be given, 1 to 200 characters")


class ResolveSlug(Generic[R]):
    """Makes the name and, unless one is given, the slug from it; INVALID_ARGUMENT when a unique one would be empty."""

    def __init__(self, resource: ResourceType[R], default_name: Callable[[R], str] | None = None) -> None:
        self._resource = resource
        self._default_name = default_name

    async def __call__(self, context: RequestContext[R, Any]) -> None:
        """Leave the name and the slug for the step that builds the state."""
        metadata = envelope(context.request).metadata
        name = metadata.name.strip()
        if not name and self._default_name is not None:
            name = self._default_name(context.request)
        slug = metadata.slug or slugify_name(name)
        if not slug and self._resource.unique_slug:
            raise invalid_field(
                "metadata.name",
                "NAME_WITHOUT_SLUG",
                f"must hold a letter or a digit to make a slug of, which {name!r} does not",
            )
        context.put(NAME, name)
        context.put(SLUG, slug)


class BuildNewState(Generic[R]):
    """Makes the new state from the request: id, names, audit, revision 1; what a client sent as status is dropped."""

    def __init__(self, resource: ResourceType[R], ids: IdSource) -> None:
        self._resource = resource
        self._ids = ids

    async def __call__(self, context: RequestContext[R, R]) -> None:
        """Set the state."""
        state = self._resource.record.message()
        state.CopyFrom(context.request)
        state.DiscardUnknownFields()  # they may mean something to the next version, which has not checked them
        if state.HasField("status"):
            state.ClearField("status")
        seen, new_id = envelope(state), self._ids.new(self._resource.prefix)
        seen.api_version = seen.api_version or API_VERSION
        seen.kind = self._resource.name
        metadata = seen.metadata
        metadata.id = new_id
        metadata.name = context.value(NAME) or new_id
        metadata.slug = context.value(SLUG) or new_id.replace("_", "-")
        metadata.revision = 1
        audit_creation(seen.status.audit, context, new_id)
        context.state = state


class LoadExisting(Generic[R]):
    """Loads the resource that `metadata.id` names, for an update.

    NOT_FOUND; ABORTED, reason REVISION_CONFLICT, when a revision is given and is not the current one.
    """

    def __init__(self, resource: ResourceType[R]) -> None:
        self._resource = resource

    async def __call__(self, context: RequestContext[R, R]) -> None:
        """Leave what exists for later steps."""
        metadata = envelope(context.request).metadata
        if not metadata.id:
            raise invalid_field("metadata.id", "ID_REQUIRED", "must be given")
        existing = await context.get(self._resource.record, metadata.id)
        if existing is None:
            raise not_found(self._resource.code, metadata.id)
        check_revision(metadata.id, metadata.revision, envelope(existing).metadata.revision)
        context.put(EXISTING, existing)


class BuildUpdatedState(Generic[R]):
    """Makes the state after an update: the request's metadata and spec over what exists; identity and status stay.

    Calling for another organization, slug or one of `fixed` fields is INVALID_ARGUMENT, reason IMMUTABLE_FIELD.
    """

    def __init__(self, resource: ResourceType[R], *, fixed: Sequence[str] = ()) -> None:
        self._resource = resource
        self._fixed = ("metadata.org", "metadata.slug", *fixed)

    async def __call__(self, context: RequestContext[R, R]) -> None:
        """Set the state."""
        existing = context.value(EXISTING)
        state = self._resource.record.message()
        state.CopyFrom(context.request)
        state.DiscardUnknownFields()
        keep_fixed_fields(existing, state, self._fixed)
        keep_identity(existing, state)
        context.state = state


class AnswerUnchanged:
    """Answers with what exists when the update would change nothing, so that no revision is made."""

    async def __call__(self, context: RequestContext[Any, Any]) -> Any:  # noqa: ANN401  # the resource
        """Compare; the answer waits until what it tells is on disk."""
        existing = context.value(EXISTING)
        if context.state != existing:
            return None
        await context.settled()
        return existing


class CountRevision:
    """Gives the updated state its revision and its audit entry."""

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Complete the state."""
        seen = envelope(context.state)
        seen.metadata.revision += 1
        audit_update(seen.status.audit.spec_audit, context, "updated")


class StageCreated(Generic[R]):
    """Stages a new resource: record, index entries, slug. ALREADY_EXISTS, reason SLUG_TAKEN."""

    def __init__(self, resource: ResourceType[R]) -> None:
        self._resource = resource

    async def __call__(self, context: RequestContext[Any, R]) -> None:
        """Add the resource to the transaction."""
        state, metadata = context.state, envelope(context.state).metadata
        if self._resource.unique_slug:
            unique = self._resource.unique(metadata.org, metadata.slug)
            holder = await context.holder(unique)
            if holder is not None:
                raise slug_taken(metadata.org, metadata.slug, holder)
            context.transaction.claim(unique, metadata.id)
        record = self._resource.record
        context.transaction.expect(record, metadata.id, None)
        context.transaction.put(record, metadata.id, state)
        context.transaction.index(record, metadata.id, after=self._resource.terms(state))


class StageUpdated(Generic[R]):
    """Stages an updated resource: record and the index entries that differ."""

    def __init__(self, resource: ResourceType[R]) -> None:
        self._resource = resource

    async def __call__(self, context: RequestContext[Any, R]) -> None:
        """Add the change to the transaction."""
        stage_update(context, self._resource, context.value(EXISTING), context.state)


class RefuseIfUsed(Generic[R]):
    """Refuses to delete what others use: FAILED_PRECONDITION, reason RESOURCE_IN_USE, with the counts."""

    def __init__(self, resource: ResourceType[R], users: Callable[[str], dict[ResourceType[Any], Term]]) -> None:
        self._resource = resource
        self._users = users

    async def __call__(self, context: RequestContext[Any, R]) -> None:
        """Count the users of the state."""
        resource_id = envelope(context.state).metadata.id
        counts = {
            user.code: await context.store.count(user.record, term, limit=_COUNT_LIMIT)
            for user, term in self._users(resource_id).items()
        }
        used = {code: count for code, count in counts.items() if count}
        for user, term in self._users(resource_id).items():
            context.transaction.expect_unused(user.record, term)
        if used:
            raise _in_use(self._resource.code, resource_id, used)


class LoadForDelete(Generic[R]):
    """Loads the resource to delete as the state. NOT_FOUND."""

    def __init__(self, resource: ResourceType[R]) -> None:
        self._resource = resource

    async def __call__(self, context: RequestContext[Any, R]) -> None:
        """Set the state."""
        resource_id = context.request.value
        existing = await context.get(self._resource.record, resource_id)
        if existing is None:
            raise not_found(self._resource.code, resource_id)
        context.state = existing


class StageDeleted(Generic[R]):
    """Stages the removal of the state: record, index entries, slug."""

    def __init__(self, resource: ResourceType[R]) -> None:
        self._resource = resource

    async def __call__(self, context: RequestContext[Any, R]) -> None:
        """Add the removal to the transaction."""
        record, metadata = self._resource.record, envelope(context.state).metadata
        context.transaction.expect(record, metadata.id, metadata.revision)
        context.transaction.delete(record, metadata.id)
        context.transaction.index(record, metadata.id, before=self._resource.terms(context.state))
        if self._resource.unique_slug:
            context.transaction.release(self._resource.unique(metadata.org, metadata.slug))


class IfExisting(Generic[R]):
    """Runs one list of steps when an earlier step left an existing resource, another when it left None."""

    def __init__(self, then: Sequence[Step[R, R, Any]], otherwise: Sequence[Step[R, R, Any]]) -> None:
        self._then = tuple(then)
        self._otherwise = tuple(otherwise)

    async def __call__(self, context: RequestContext[R, R]) -> Any:  # noqa: ANN401  # what the steps answer
        """Run the list that fits; answer if one of its steps does."""
        for step in self._then if context.value(EXISTING) is not None else self._otherwise:
            answer = await step(context)
            if answer is not None:
                return answer
        return None


class Persist:
    """Commits everything staged, at once or not at all; on disk when the step is done.

    Whoever follows is woken from the commit itself, even when the caller has gone away meanwhile.
    """

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Commit. Raises `Conflict` or `Unavailable`."""
        await context.store.commit(context.transaction)


class AnswerState:
    """Answers with the state."""

    async def __call__(self, context: RequestContext[Any, Any]) -> Any:  # noqa: ANN401  # the resource
        """Return the state."""
        return context.state


async def create_inside(context: RequestContext[Any, Any], steps: Sequence[Step[F, F, Any]], request: F) -> F:
    """Create another resource in the same commit, by the steps of its own service; return its state."""
    inner = await run_inner(steps, context.inner(request))
    state: F = inner.state
    return state


def stage_update(context: RequestContext[Any, Any], resource: ResourceType[F], existing: F, state: F) -> None:
    """Stage `state` in place of `existing`, expecting that nobody changes it meanwhile."""
    metadata = envelope(existing).metadata
    record = resource.record
    context.transaction.expect(record, metadata.id, metadata.revision)
    context.transaction.put(record, metadata.id, state)
    context.transaction.index(record, metadata.id, before=resource.terms(existing), after=resource.terms(state))


def audit_creation(audit: Audit, context: RequestContext[Any, Any], resource_id: str) -> None:
    """Fill both audit trails of something that this call creates, at the time in its id: lists find it by that one."""
    # Filled in place: to pass messages to a constructor costs several times what it does to copy them.
    info, at = audit.spec_audit, from_millis(ulid_millis(resource_id))
    info.created_by.id = info.updated_by.id = context.caller.actor
    info.created_at.CopyFrom(at)
    info.updated_at.CopyFrom(at)
    info.event = "created"
    audit.status_audit.CopyFrom(info)


def audit_update(info: AuditInfo, context: RequestContext[Any, Any], event: str) -> None:
    """Fill one audit trail of something that this call changes."""
    actor = info.updated_by
    actor.Clear()
    actor.id = context.caller.actor
    info.updated_at.CopyFrom(context.timestamp)
    info.event = event


def check_revision(resource_id: str, given: int, current: int) -> None:
    """Raise `Aborted`, reason REVISION_CONFLICT, when a revision is given and is not the current one."""
    if given not in (0, current):
        raise Aborted(
            "REVISION_CONFLICT",
            f"metadata.revision is {given}, but {resource_id} is at {current}. Get it, then decide again.",
            metadata={"id": resource_id, "revision": str(current)},
        )


def keep_identity(existing: Message, state: Message) -> None:
    """Carry over into `state` what an update cannot touch: id, revision, names left out, status."""
    seen, before = envelope(state), envelope(existing)
    seen.api_version = seen.api_version or before.api_version
    seen.kind = before.kind
    seen.metadata.id = before.metadata.id
    seen.metadata.slug = before.metadata.slug
    seen.metadata.org = before.metadata.org
    seen.metadata.name = seen.metadata.name.strip() or before.metadata.name
    seen.metadata.revision = before.metadata.revision
    state.ClearField("status")
    if existing.HasField("status"):
        getattr(state, "status").CopyFrom(getattr(existing, "status"))  # noqa: B009  # any resource


def keep_fixed_fields(existing: Message, state: Message, paths: Sequence[str]) -> None:
    """Carry over fields that cannot change: empty means as before, another value is INVALID_ARGUMENT."""
    for path in paths:
        *parents, name = path.split(".")
        before: Any = existing
        after: Any = state
        for parent in parents:
            before, after = getattr(before, parent), getattr(after, parent)
        old, new = getattr(before, name), getattr(after, name)
        if new and new != old:
            raise _immutable(path, old, new)
        if old != new:
            setattr(after, name, old)


def slug_taken(org: str, slug: str, holder: str) -> AlreadyExists:
    """Make the error for a slug that another resource holds."""
    where = f"organization {org!r}" if org else "the default organization"
    return AlreadyExists(
        "SLUG_TAKEN",
        f"The slug {slug!r} is taken in {where} by {holder}. Choose another name, or use Apply to update it.",
        metadata={"slug": slug, "org": org, "id": holder},
    )


def _immutable(path: str, old: object, new: object) -> InvalidArgument:
    return invalid_field(path, "IMMUTABLE_FIELD", f"cannot be changed after creation from {old!r} to {new!r}")


def _in_use(code: str, resource_id: str, counts: dict[str, int]) -> FailedPrecondition:
    told = " and ".join(
        f"{count}{'+' if count >= _COUNT_LIMIT else ''} {kind.lower().replace('_', ' ')}(s)"
        for kind, count in counts.items()
    )
    return FailedPrecondition(
        "RESOURCE_IN_USE",
        f"{resource_id} is used by {told}. Delete these first, or set cascade to delete them as well.",
        metadata={"id": resource_id, "kind": code} | {kind.lower(): str(count) for kind, count in counts.items()},
    )
