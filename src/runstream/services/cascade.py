"""Cascade: deletes what uses a resource before the resource itself, so that nothing ever points to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from runstream.model.errors import FailedPrecondition, NotFound
from runstream.storage.store import Query, Transaction
from runstream.v1.resource_pb2 import ResourceDeleteInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.pipeline.context import Caller
    from runstream.pipeline.engine import Pipeline
    from runstream.pipeline.resources import ResourceType
    from runstream.services.wiring import Wiring
    from runstream.storage.store import Term

A_co = TypeVar("A_co", bound=Message, covariant=True)
R = TypeVar("R", bound=Message)

_CHUNK = 100
#: How often users that appear during the cascade are deleted as well.
_ROUNDS = 10


class Deleter(Protocol[A_co]):
    """Deletes one resource and everything that uses it."""

    async def delete(self, request: ResourceDeleteInput, caller: Caller, /) -> A_co:
        """Delete it. NOT_FOUND."""
        ...


class TermOf(Protocol):
    """Makes the term under which a user of a resource is indexed."""

    def __call__(self, resource_id: str, /) -> Term:
        """Make the term."""
        ...


class Cascade(Generic[R]):
    """Deletes a resource by its pipeline; when asked to, what uses it goes first, each in its own commit."""

    def __init__(
        self,
        wiring: Wiring,
        pipeline: Pipeline[ResourceDeleteInput, R, R],
        users: Sequence[tuple[ResourceType[Any], TermOf, Deleter[Message]]],
    ) -> None:
        self._store = wiring.store
        self._pipeline = pipeline
        self._users = tuple(users)

    async def delete(self, request: ResourceDeleteInput, caller: Caller) -> R:
        """Delete the resource. FAILED_PRECONDITION, reason RESOURCE_IN_USE, when it is used and cascade is not set."""
        for _ in range(_ROUNDS if request.cascade else 0):
            await self._delete_users(request.value, caller)
            try:
                return await self._pipeline.run(request, caller)
            except FailedPrecondition as error:
                if error.reason != "RESOURCE_IN_USE":
                    raise
        return await self._pipeline.run(request, caller)

    async def _delete_users(self, resource_id: str, caller: Caller) -> None:
        for user, term_of, deleter in self._users:
            query = Query(user.record, ((term_of(resource_id),),))
            while ids := await self._store.scan(query, limit=_CHUNK):
                for user_id in ids:
                    try:
                        request = ResourceDeleteInput(value=user_id, cascade=True)
                        await deleter.delete(request, caller)
                    except NotFound:
                        # Somebody else deletes it. When that is on disk, the scan shows what is left.
                        await self._store.commit(Transaction())
