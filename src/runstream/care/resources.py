"""Resources: agents, instances and sessions, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.care.examination import decoded, named
from runstream.care.findings import Code
from runstream.services.resource_types import AGENTS, INSTANCES, SESSIONS
from runstream.storage import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runstream.care.entries import Entries
    from runstream.care.examination import Examination
    from runstream.care.names import Names
    from runstream.care.references import References
    from runstream.pipeline.resources import ResourceType


class ResourceCheck:
    """Goes through the resources that are a record alone."""

    def __init__(
        self,
        examination: Examination,
        entries: Entries,
        names: Names,
        references: References,
        totals: Mapping[str, int],
    ) -> None:
        """Take how many records there are, by the name of their kind."""
        self._examination = examination
        self._entries = entries
        self._names = names
        self._totals = totals
        self._rules: tuple[tuple[ResourceType[Any], Callable[[str, Any], None]], ...] = (
            (AGENTS, references.check_agent),
            (INSTANCES, references.check_instance),
            (SESSIONS, references.check_session),
        )

    def check(self) -> None:
        """Tell of everything in them that is not as it must be."""
        for resource, check_references in self._rules:
            prefix = keys.records(resource.record)
            for key, value in self._examination.view.pairs(prefix):
                self._examination.advance(
                    f"{resource.record.name.replace('_', ' ')}s", self._totals[resource.record.name]
                )
                try:
                    record_id = keys.decode_id(key[len(prefix) :])
                except ValueError:
                    continue  # told as an unknown key
                self._check_one(resource, record_id, value, check_references)

    def _check_one(
        self,
        resource: ResourceType[Any],
        record_id: str,
        value: bytes,
        check_references: Callable[[str, Any], None],
    ) -> None:
        record = decoded(resource.record.message, value)
        where = named(resource.record, record_id)
        if record is None:
            # Nobody can tell what it was: what points to it stays as it is.
            self._examination.found(Code.UNREADABLE, where, "it cannot be read")
            self._entries.leave(resource.record, record_id)
            return
        if record.metadata.id != record_id:
            self._examination.found(Code.ID_DIFFERS, where, f"it says that it is {record.metadata.id!r}")
        self._entries.check(resource, record_id, record)
        if resource.unique_slug:
            self._names.check(resource, record_id, record)
        check_references(record_id, record)
