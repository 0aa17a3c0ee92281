"""The queries that resources have in common. They read what is on disk, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from runstream.model.errors import NotFound, invalid_field, not_found
from runstream.pipeline.resources import R, ResourceType, envelope, label_term
from runstream.storage.store import Term

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runstream.storage.store import Store
    from runstream.v1.resource_pb2 import ApiResourceKind, ResourceReference


class ResourceQueries(Generic[R]):
    """Get by id and by reference of one resource type."""

    def __init__(self, store: Store, resource: ResourceType[R]) -> None:
        self._store = store
        self._resource = resource

    async def by_id(self, resource_id: str) -> R:
        """Return the resource. NOT_FOUND."""
        found = await self._store.durable.get(self._resource.record, resource_id)
        if found is None:
            raise not_found(self._resource.code, resource_id)
        return found

    async def by_reference(self, reference: ResourceReference, kind: ApiResourceKind.ValueType) -> R:
        """Return the resource with this organization and slug, and this scope if one is given.

        NOT_FOUND; INVALID_ARGUMENT for another kind.
        """
        if not reference.slug:
            raise invalid_field("slug", "SLUG_REQUIRED", "must be given")
        if reference.kind not in (0, kind):
            raise invalid_field("kind", "WRONG_KIND", f"must be {self._resource.code} or left out in this call")
        unique = self._resource.unique(reference.org, reference.slug)
        holder = await self._store.durable.holder(unique)
        found = holder and await self._store.durable.get(self._resource.record, holder)
        if not found or reference.scope not in (0, envelope(found).metadata.owner_scope):
            raise self._unknown_slug(reference)
        return found

    def _unknown_slug(self, reference: ResourceReference) -> NotFound:
        where = f"organization {reference.org!r}" if reference.org else "the default organization"
        return NotFound(
            f"{self._resource.code}_NOT_FOUND",
            f"There is no {self._resource.name} with the slug {reference.slug!r} in {where}.",
            metadata={"slug": reference.slug, "org": reference.org},
        )


def common_groups(
    *, org: str = "", tags: Iterable[str] = (), labels: Mapping[str, str] | None = None
) -> list[tuple[Term, ...]]:
    """The groups of a query for the filters that all lists share; every one must hold."""
    groups: list[tuple[Term, ...]] = [(Term("tag", tag),) for tag in tags]
    groups += [(label_term(key, value),) for key, value in sorted((labels or {}).items())]
    if org:
        groups.append((Term("org", org),))
    return groups
