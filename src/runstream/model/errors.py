"""Every error that Runstream answers with, in one tree.

    RunstreamError
    ├── InvalidArgument        the request is wrong whatever the state: fix it, then send it again
    ├── NotFound               no such resource
    ├── AlreadyExists          the name or the key is taken
    ├── FailedPrecondition     the request is right, the state is not
    ├── OutOfRange             a cursor is ahead of what it points into
    ├── Aborted                somebody else was quicker: read again, then decide again
    ├── ResourceExhausted      a limit is reached
    ├── Unavailable            not now: the same call may succeed later
    ├── Unauthenticated        who is asking is not known
    ├── PermissionDenied       who is asking may not
    └── Internal               a fault of the server: told to the client by its request id alone

The names are those of the gRPC status codes; `transport` has the one table that maps them. Each error carries a
`reason`, stable and in upper case, for programs; a message for people, which says what was wrong with which value and
what would be right; the fields at fault; and metadata with the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field at fault: its path from the request's root, what is wrong, and the stable id of the rule."""

    field: str
    description: str
    reason: str = ""


class RunstreamError(Exception):
    """The root of the tree; never raised itself."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        fields: Iterable[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float = 0,
    ) -> None:
        """Take the stable `reason`, the `message` for people, the `fields` at fault and the values concerned.

        `retry_after`: in how many seconds the same call may be sent again; 0 when nothing is known of that.
        """
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fields = tuple(fields)
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


class InvalidArgument(RunstreamError):
    """The request is wrong whatever the state."""


class NotFound(RunstreamError):
    """There is no such resource."""


class AlreadyExists(RunstreamError):
    """The name or the key is taken."""


class FailedPrecondition(RunstreamError):
    """The request is right, but not for the state the resource is in."""


class OutOfRange(RunstreamError):
    """A cursor is ahead of what it points into."""


class Aborted(RunstreamError):
    """Somebody else changed the resource first."""


class ResourceExhausted(RunstreamError):
    """A limit is reached."""


class Unavailable(RunstreamError):
    """The server cannot do it now; the same call may succeed later."""


class Unauthenticated(RunstreamError):
    """It is not known who is asking."""


class PermissionDenied(RunstreamError):
    """Who is asking may not."""


class Internal(RunstreamError):
    """The server is at fault; what happened stands in its log under the request id."""


def invalid_field(field: str, reason: str, description: str) -> InvalidArgument:
    """Make the error for a single wrong field."""
    violation = FieldViolation(field, description, reason)
    return InvalidArgument(reason, f"{field}: {description}", fields=[violation])


def not_found(kind: str, resource_id: str) -> NotFound:
    """Make the error for a resource that does not exist; `kind` is its upper-case name with underscores."""
    name = kind.replace("_", " ").lower()
    return NotFound(
        f"{kind}_NOT_FOUND",
        f"There is no {name} {resource_id!r}.",
        metadata={"id": resource_id},
    )
