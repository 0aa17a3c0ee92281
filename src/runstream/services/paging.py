"""Paging: a page of a scan, by keyset. A page costs the same wherever it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.page_tokens import decode, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from runstream.storage.store import Query, Store

DEFAULT_PAGE_SIZE = 50
#: A page ends early when it is this large, so that it fits what clients take by default, which is 4 MiB.
PAGE_BYTES = 2 << 20


def filter_bytes(request: Message) -> bytes:
    """The canonical bytes of a list request's filter: everything but page and view."""
    canonical = type(request)()
    canonical.CopyFrom(request)
    for name in ("page_size", "page_token", "view"):
        if name in request.DESCRIPTOR.fields_by_name:
            canonical.ClearField(name)
    return request.DESCRIPTOR.full_name.encode() + canonical.SerializeToString(deterministic=True)


async def fill_page(
    store: Store,
    query: Query,
    request: Any,  # noqa: ANN401  # any list request: page_size and page_token
    answer: Any,  # noqa: ANN401  # any list: entries and next_page_token
    load: Callable[[str], Awaitable[Message | None]],
) -> None:
    """Fill `answer` with the page that `request` asks for, newest first, and the token of the next one.

    A page that grows beyond 2 MiB ends there, with at least one entry.

    INVALID_ARGUMENT for a token that is malformed or was made for another filter.
    """
    size = request.page_size or DEFAULT_PAGE_SIZE
    bound_to = filter_bytes(request)
    after = decode(request.page_token, bound_to) if request.page_token else None
    ids = await store.scan(query, after=after, limit=size + 1)
    filled = 0
    for place, resource_id in enumerate(ids[:size], start=1):
        resource = await load(resource_id)
        if resource is not None:  # still there, and still what was asked for
            answer.entries.append(resource)
            filled += resource.ByteSize()
        if place < len(ids) and (place == size or filled >= PAGE_BYTES):
            answer.next_page_token = encode(bound_to, resource_id)
            return
