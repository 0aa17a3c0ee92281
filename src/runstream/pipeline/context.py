"""The request context: what the steps of one command share, for one try of one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, cast

from google.protobuf.message import Message

from runstream.model.times import to_timestamp
from runstream.storage.store import Transaction

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from runstream.storage.records import M, RecordKind
    from runstream.storage.store import Store, Unique

Q = TypeVar("Q", bound=Message)
S = TypeVar("S", bound=Message)
Q2 = TypeVar("Q2", bound=Message)
T = TypeVar("T")


class Caller(NamedTuple):
    """Who calls, and what came with the call beside the request."""

    actor: str = "anonymous"
    request_id: str = ""
    idempotency_key: str = ""
    traceparent: str = ""
    #: Whom the limits of calls count it for; empty when they count nobody.
    client: str = ""


#: The server itself, as the caller of what time, dispatch and the tree ask for.
SYSTEM: Final = Caller(actor="system")


@dataclass(frozen=True, slots=True, eq=False)
class ContextKey(Generic[T]):
    """Names a value that one step leaves for a later one; its identity is the key, its name is for errors."""

    name: str


@dataclass(slots=True)
class RequestContext(Generic[Q, S]):
    """One try of one call: the request, never changed, and what the steps make of it."""

    request: Q
    caller: Caller
    #: When the call came in; every time that the command writes is this one.
    now: datetime
    store: Store
    #: Everything the command will store, in one commit.
    transaction: Transaction = field(default_factory=Transaction)
    _state: S | None = None
    _timestamp: Timestamp | None = None
    _values: dict[ContextKey[Any], Any] = field(default_factory=dict)

    @property
    def state(self) -> S:
        """The new state of the resource, built step by step."""
        if self._state is None:
            raise LookupError("no step has set the state yet")
        return self._state

    @state.setter
    def state(self, state: S) -> None:
        self._state = state

    @property
    def timestamp(self) -> Timestamp:
        """`now` as protobuf writes it; not to be changed."""
        if self._timestamp is None:
            self._timestamp = to_timestamp(self.now)
        return self._timestamp

    def put(self, key: ContextKey[T], value: T) -> None:
        """Leave a value for a later step."""
        self._values[key] = value

    def value(self, key: ContextKey[T]) -> T:
        """Return what an earlier step left. LookupError when none did: the list of steps is wrong."""
        try:
            value: T = self._values[key]
        except KeyError:
            raise LookupError(f"no step has left a value for {key.name}") from None
        return value

    async def get(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return a record as this command sees it: staged by itself, else as pending in the store."""
        key = (kind, record_id)
        staged = self.transaction.puts.get(key)
        if staged is not None:
            copy = kind.message()
            copy.CopyFrom(cast("M", staged))
            return copy
        if key in self.transaction.deletes:
            return None
        return await self.store.pending.get(kind, record_id)

    async def shared(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return what `get` returns, without a copy: nobody may change it."""
        key = (kind, record_id)
        staged = self.transaction.puts.get(key)
        if staged is not None:
            return cast("M", staged)
        if key in self.transaction.deletes:
            return None
        return await self.store.pending.shared(kind, record_id)

    async def holder(self, unique: Unique) -> str | None:
        """Return who holds a unique name as this command sees it."""
        staged = self.transaction.claims.get(unique)
        return staged if staged is not None else await self.store.pending.holder(unique)

    async def settled(self) -> None:
        """Return when everything that this command has read is on disk. For answers without a commit of their own."""
        await self.store.commit(Transaction(epoch=self.transaction.epoch))

    def inner(self, request: Q2) -> RequestContext[Q2, Any]:
        """Make the context of a command inside this one: a request of its own, the same commit."""
        return RequestContext(request, self.caller, self.now, self.store, self.transaction)
