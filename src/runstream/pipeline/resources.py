"""Resource types: what the shared steps must know to handle a resource of any kind in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from google.protobuf.message import Message

from runstream.storage.store import Term, Unique

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.storage.records import RecordKind
    from runstream.v1.resource_pb2 import Audit, ResourceMetadata

R = TypeVar("R", bound=Message)

API_VERSION = "runstream/v1"


class AuditedStatus(Protocol):
    """The status of any resource: it has an audit trail."""

    @property
    def audit(self) -> Audit:
        """The audit trail."""
        ...


class Envelope(Protocol):
    """The fields that every resource has."""

    api_version: str
    kind: str

    @property
    def metadata(self) -> ResourceMetadata:
        """Names, id, labels, revision."""
        ...

    @property
    def status(self) -> AuditedStatus:
        """What the server says."""
        ...


def envelope(resource: Message) -> Envelope:
    """See a resource by the fields that all resources have."""
    return cast("Envelope", resource)


@dataclass(frozen=True, slots=True, eq=False)
class ResourceType(Generic[R]):
    """One type of resource: its record, its names, what it is indexed under, whether its slug is unique."""

    record: RecordKind[R]
    #: The value of the field `kind`, as in ``AgentExecution``.
    name: str
    #: The name in error reasons, as in ``AGENT_EXECUTION``.
    code: str
    #: The prefix of its ids.
    prefix: str
    #: The terms a resource is found by, from its fields.
    terms: Callable[[R], frozenset[Term]]
    unique_slug: bool

    def unique(self, org: str, slug: str) -> Unique:
        """The unique name of a resource with this organization and slug."""
        return Unique(f"{self.record.name}_slug", org, slug)


def common_terms(metadata: ResourceMetadata) -> set[Term]:
    """The terms that resources of every type are indexed under: organization, tags and labels."""
    terms = {Term("org", metadata.org)}
    # Asked first: to iterate over what is empty costs as much as all of this.
    if metadata.tags:
        terms.update(Term("tag", tag) for tag in metadata.tags)
    if metadata.labels:
        terms.update(label_term(key, value) for key, value in metadata.labels.items())
    return terms


def label_term(key: str, value: str) -> Term:
    """The term of one label; the length tells where the key ends, so no two labels share a term."""
    return Term("label", f"{len(key)}:{key}{value}")
