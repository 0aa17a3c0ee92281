"""Idempotency keys: a repeated Create changes nothing and answers as the first did.

A key belongs to one method of one organization and is kept for 24 hours, on disk, written in the same commit as what it
created. The request is remembered as a digest only.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic

from runstream.model.errors import AlreadyExists, NotFound, invalid_field
from runstream.model.times import to_millis, to_timestamp
from runstream.pipeline.context import ContextKey
from runstream.pipeline.resources import R, ResourceType, envelope
from runstream.storage.records import IDEMPOTENCY
from runstream.storage.store import ANY_REVISION
from runstream.stored.v1.stored_pb2 import IdempotencyRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runstream.pipeline.context import RequestContext

KEPT_FOR = timedelta(hours=24)
_LONGEST_KEY = 255

#: The id of the record of this call's key, and whether an expired one is still there; nothing without a key.
_RECORD: ContextKey[tuple[str, bool] | None] = ContextKey("idempotency record")


class ReplayIdempotentCall(Generic[R]):
    """Answers a repeated call as the first one was answered.

    The same key with another request is ALREADY_EXISTS, reason IDEMPOTENCY_KEY_REUSED; with the same request, after
    what it created was deleted, NOT_FOUND, reason IDEMPOTENT_RESULT_DELETED.
    """

    def __init__(
        self,
        resource: ResourceType[R],
        recall: Callable[[RequestContext[R, R], IdempotencyRecord], Awaitable[R | None]],
    ) -> None:
        self._resource = resource
        self._recall = recall

    async def __call__(self, context: RequestContext[R, R]) -> R | None:
        """Look the key up; the answer waits until the first call is on disk."""
        key = context.caller.idempotency_key
        context.put(_RECORD, None)
        if not key:
            return None
        check_key(key)
        record_id = _record_id(self._resource, envelope(context.request).metadata.org, key)
        record = await context.get(IDEMPOTENCY, record_id)
        context.put(_RECORD, (record_id, record is not None))
        if record is None or to_millis(record.expire_time) <= to_millis(context.now):
            return None
        if record.request_digest != _digest(context):
            raise _reused(key, record)
        await context.settled()
        answer = await self._recall(context, record)
        if answer is None:
            raise _deleted(key, record)
        return answer


class RememberIdempotencyKey:
    """Stages the record of this call's key, if it has one."""

    def __init__(self, *, keep_answer: bool) -> None:
        self._keep_answer = keep_answer

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the record to the transaction."""
        found = context.value(_RECORD)
        if found is None:
            return
        record_id, expired = found
        record = IdempotencyRecord(
            request_digest=_digest(context),
            resource_id=envelope(context.state).metadata.id,
            expire_time=to_timestamp(context.now + KEPT_FOR),
            answer=context.state.SerializeToString() if self._keep_answer else b"",
        )
        context.transaction.expect(IDEMPOTENCY, record_id, ANY_REVISION if expired else None)
        context.transaction.put(IDEMPOTENCY, record_id, record)


def recall_kept(
    resource: ResourceType[R],
) -> Callable[[RequestContext[R, R], IdempotencyRecord], Awaitable[R | None]]:
    """Recall the answer kept in the record, as long as the resource exists."""

    async def recall(context: RequestContext[R, R], record: IdempotencyRecord) -> R | None:
        if await context.get(resource.record, record.resource_id) is None:
            return None
        return resource.record.message.FromString(record.answer)

    return recall


def check_key(key: str) -> None:
    """Raise `InvalidArgument`, reason INVALID_IDEMPOTENCY_KEY, for a key that is not printable or too long."""
    if len(key) > _LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise invalid_field(
            "idempotency-key",
            "INVALID_IDEMPOTENCY_KEY",
            f"must be 1 to {_LONGEST_KEY} printable ASCII characters",
        )


def _record_id(resource: ResourceType[Any], org: str, key: str) -> str:
    scope = f"{resource.code}\0Create\0{org}\0{key}"
    return hashlib.sha256(scope.encode()).hexdigest()


def _digest(context: RequestContext[Any, Any]) -> bytes:
    return hashlib.sha256(context.request.SerializeToString(deterministic=True)).digest()


def _reused(key: str, record: IdempotencyRecord) -> AlreadyExists:
    return AlreadyExists(
        "IDEMPOTENCY_KEY_REUSED",
        f"The idempotency key {key!r} was used for another request, which created"
        f" {record.resource_id}. Use a new key for a new request.",
        metadata={"id": record.resource_id},
    )


def _deleted(key: str, record: IdempotencyRecord) -> NotFound:
    return NotFound(
        "IDEMPOTENT_RESULT_DELETED",
        f"{record.resource_id}, which the idempotency key {key!r} created, was deleted."
        " Use a new key to create another.",
        metadata={"id": record.resource_id},
    )
