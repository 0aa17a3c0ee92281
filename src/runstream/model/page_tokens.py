"""Page tokens: where the next page begins, opaque to clients and bound to the filter.

    token  := base64url without padding (body checksum)
    body   := version filter id
    version  := 0x01
    filter   := the first 8 bytes of SHA-256 over the filter's canonical bytes
    id       := the last id of the page before, in ASCII
    checksum := the first 8 bytes of SHA-256 over the body

The checksum tells a damaged token from one of another filter. It keeps nobody out: whoever forges a
token sees no more than the list shows anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from runstream.model.errors import InvalidArgument, invalid_field
from runstream.model.ids import is_id

_VERSION: Final = b"\x01"
_DIGEST_BYTES: Final = 8
_PREFIX_LENGTH: Final = 3
_FIELD: Final = "page_token"


def encode(bound_to: bytes, last_id: str) -> str:
    """Make the token for the page after `last_id`.

    `bound_to` are the canonical bytes of the filter: the same for the same filter, whatever page
    or page size is asked for, and different between methods.
    """
    body = _VERSION + _digest(bound_to) + last_id.encode()
    return base64.urlsafe_b64encode(body + _digest(body)).rstrip(b"=").decode()


def decode(token: str, bound_to: bytes) -> str:
    """Return the id that the page begins after.

    Raises `InvalidArgument`: reason INVALID_PAGE_TOKEN for what no version of this server has
    made, reason PAGE_TOKEN_FILTER_MISMATCH for a token that belongs to another filter.
    """
    body = _checked_body(token)
    rest = body.removeprefix(_VERSION)
    if not rest.startswith(_digest(bound_to)):
        raise invalid_field(
            _FIELD,
            "PAGE_TOKEN_FILTER_MISMATCH",
            "belongs to another filter; repeat the filter it was made with, or begin without it",
        )
    last_id = rest[_DIGEST_BYTES:].decode("ascii", "replace")
    if not is_id(last_id[:_PREFIX_LENGTH], last_id):
        raise _invalid()
    return last_id


def _checked_body(token: str) -> bytes:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _invalid() from error
    body, checksum = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    # Base 64 can write the same bytes in several ways; only ours is a token of ours.
    written = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    if written != token or not body.startswith(_VERSION) or checksum != _digest(body):
        raise _invalid()
    return body


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]


def _invalid() -> InvalidArgument:
    return invalid_field(
        _FIELD,
        "INVALID_PAGE_TOKEN",
        "must be the next_page_token of an earlier answer, unchanged; leave it empty to begin",
    )
