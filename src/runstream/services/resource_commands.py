"""The commands that agents, instances and sessions have in common, each a visible list of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from runstream.model.errors import not_found
from runstream.pipeline.idempotency import (
    RememberIdempotencyKey,
    ReplayIdempotentCall,
    recall_kept,
)
from runstream.pipeline.resources import R, ResourceType, envelope
from runstream.pipeline.steps import (
    EXISTING,
    SLUG,
    AnswerState,
    AnswerUnchanged,
    BuildUpdatedState,
    CountRevision,
    IfExisting,
    LoadExisting,
    LoadForDelete,
    Persist,
    RefuseIfUsed,
    StageDeleted,
    StageUpdated,
    ValidateFieldConstraints,
    check_revision,
)
from runstream.services.cascade import Cascade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from runstream.pipeline.context import Caller, RequestContext
    from runstream.pipeline.engine import Step
    from runstream.services.cascade import Deleter, TermOf
    from runstream.services.wiring import Wiring
    from runstream.v1.resource_pb2 import ResourceDeleteInput


@dataclass(frozen=True, slots=True)
class ResourceRules(Generic[R]):
    """How the common commands differ from resource to resource."""

    resource: ResourceType[R]
    #: Refuse, before anything else, a request that cannot make a resource.
    require: Sequence[Step[R, R, Any]]
    #: Make and stage a new resource; other services create by the same steps.
    build: Sequence[Step[R, R, Any]]
    #: Find what Apply would update; leaves EXISTING, None when there is nothing.
    find: Step[R, R, Any]
    #: The fields of the spec that cannot change.
    fixed: Sequence[str]
    #: Who may use a resource, and how they are found and deleted.
    users: Sequence[tuple[ResourceType[Any], TermOf, Deleter[Message]]]
    #: What else goes with a deletion, in the same commit.
    on_delete: Sequence[Step[Any, R, Any]] = ()


class ResourceCommands(Generic[R]):
    """Create, Update, Apply and Delete of one resource type."""

    def __init__(self, wiring: Wiring, rules: ResourceRules[R]) -> None:
        name, answer = rules.resource.name, rules.resource.record.message
        self._create = wiring.pipeline(f"{name}.Create", _create_steps(rules), answer)
        self._update = wiring.pipeline(f"{name}.Update", _update_steps(rules), answer)
        self._apply = wiring.pipeline(f"{name}.Apply", _apply_steps(rules), answer)
        delete = wiring.pipeline(f"{name}.Delete", _delete_steps(rules), answer)
        self._delete = Cascade(wiring, delete, rules.users)

    async def create(self, request: R, caller: Caller) -> R:
        """Create the resource; durable when it returns. A repeat with the same idempotency key creates nothing."""
        return await self._create.run(request, caller)

    async def update(self, request: R, caller: Caller) -> R:
        """Replace metadata and spec; durable when it returns."""
        return await self._update.run(request, caller)

    async def apply(self, request: R, caller: Caller) -> R:
        """Create the resource or update the one it names; a repeat makes no revision."""
        return await self._apply.run(request, caller)

    async def delete(self, request: ResourceDeleteInput, caller: Caller) -> R:
        """Delete the resource and answer with what it was; a repeat is NOT_FOUND."""
        return await self._delete.delete(request, caller)


def _create_steps(rules: ResourceRules[R]) -> list[Step[R, R, R]]:
    return [
        ValidateFieldConstraints(),
        ReplayIdempotentCall(rules.resource, recall_kept(rules.resource)),
        *rules.require,
        *rules.build,
        RememberIdempotencyKey(keep_answer=True),
        Persist(),
        AnswerState(),
    ]


def _update_steps(rules: ResourceRules[R]) -> list[Step[R, R, R]]:
    return [
        ValidateFieldConstraints(),
        LoadExisting(rules.resource),
        BuildUpdatedState(rules.resource, fixed=rules.fixed),
        CountRevision(),
        StageUpdated(rules.resource),
        Persist(),
        AnswerState(),
    ]


def _apply_steps(rules: ResourceRules[R]) -> list[Step[R, R, R]]:
    update: list[Step[R, R, Any]] = [
        BuildUpdatedState(rules.resource, fixed=rules.fixed),
        AnswerUnchanged(),
        CountRevision(),
        StageUpdated(rules.resource),
    ]
    return [
        ValidateFieldConstraints(),
        *rules.require,
        rules.find,
        IfExisting(then=update, otherwise=rules.build),
        Persist(),
        AnswerState(),
    ]


def _delete_steps(rules: ResourceRules[R]) -> list[Step[ResourceDeleteInput, R, R]]:
    terms = {user: term_of for user, term_of, _ in rules.users}
    return [
        ValidateFieldConstraints(),
        LoadForDelete(rules.resource),
        RefuseIfUsed(rules.resource, lambda i: {user: of(i) for user, of in terms.items()}),
        StageDeleted(rules.resource),
        *rules.on_delete,
        Persist(),
        AnswerState(),
    ]


class FindByIdOrSlug(Generic[R]):
    """Finds the resource that Apply names: by id, else by its unique slug.

    NOT_FOUND for an id that does not exist; ABORTED when a revision is given and is not the current one.
    """

    def __init__(self, resource: ResourceType[R], resolve_slug: Step[R, R, Any]) -> None:
        self._resource = resource
        self._resolve_slug = resolve_slug

    async def __call__(self, context: RequestContext[R, R]) -> None:
        """Leave what exists, or None."""
        metadata = envelope(context.request).metadata
        await self._resolve_slug(context)
        if metadata.id:
            await LoadExisting(self._resource)(context)
            return
        existing = await self._by_slug(context, metadata.org, context.value(SLUG))
        if existing is not None:
            seen = envelope(existing).metadata
            check_revision(seen.id, metadata.revision, seen.revision)
        context.put(EXISTING, existing)

    async def _by_slug(self, context: RequestContext[R, R], org: str, slug: str) -> R | None:
        holder = await context.holder(self._resource.unique(org, slug))
        return None if holder is None else await context.get(self._resource.record, holder)


async def require(context: RequestContext[Any, Any], resource: ResourceType[R], resource_id: str) -> R:
    """Return a resource that the command depends on, not to be changed, expecting it to stay. NOT_FOUND."""
    found = await context.shared(resource.record, resource_id)
    if found is None:
        raise not_found(resource.code, resource_id)
    if (resource.record, resource_id) not in context.transaction.puts:
        context.transaction.expect_exists(resource.record, resource_id)
    return found
