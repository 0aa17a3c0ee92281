"""Index entries: every record stands under its terms, and every entry has its record."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from runstream.care.examination import named
from runstream.care.findings import Code
from runstream.services.resource_types import AGENTS, EXECUTIONS, INSTANCES, SESSIONS
from runstream.storage import keys
from runstream.storage.parsed_keys import EntryKey, parse
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD, RECORD_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from runstream.care.examination import Examination
    from runstream.pipeline.resources import ResourceType
    from runstream.storage.records import AnyKind
    from runstream.storage.store import Term

_RESOURCES: Final[Mapping[str, ResourceType[Any]]] = {
    resource.record.name: resource for resource in (AGENTS, INSTANCES, SESSIONS, EXECUTIONS)
}


class Entries:
    """Checks index entries both ways.

    Those that records have are counted as they are found. Where there are no more, each has its record, since no two
    are the same; only where there are more, each is looked at.
    """

    def __init__(self, examination: Examination, stored: Mapping[str, int]) -> None:
        """Take how many entries are stored, by the name of the kind."""
        self._examination = examination
        self._stored = stored
        self._explained: Counter[str] = Counter()
        #: Records of which nobody can tell now under which terms they belong.
        self._left: set[tuple[str, str]] = set()

    def check(self, resource: ResourceType[Any], record_id: str, record: Message) -> None:
        """Check that a record is found under each of its terms."""
        for term in resource.terms(record):
            key = keys.entry(resource.record, record_id, term)
            value = self._examination.view.get(key)
            if value is None:
                told = f"it is not found by {_told(term)}"
                self._examination.found(Code.ENTRY_MISSING, named(resource.record, record_id), told, [(key, b"")])
                continue
            self._explained[resource.record.name] += 1
            if value:
                told = f"its entry of {_told(term)} holds {len(value)} bytes, where nothing must be"
                self._examination.found(Code.UNREADABLE, named(resource.record, record_id), told, [(key, b"")])

    def leave(self, kind: AnyKind, record_id: str) -> None:
        """Leave the entries of a record as they are: what it is is not known, or about to be mended."""
        self._left.add((kind.name, record_id))

    def check_back(self) -> None:
        """Check that each entry has its record; after all records were checked."""
        for kind in RECORD_KINDS:
            if self._stored[kind.name] > self._explained[kind.name]:
                self._look_at_all(kind)

    def _look_at_all(self, kind: AnyKind) -> None:
        for key, _ in self._examination.view.pairs(keys.ENTRY + keys.records(kind)[1:]):
            self._examination.advance(f"entries of {kind.name}", self._stored[kind.name])
            try:
                parsed = parse(key)
            except ValueError:
                continue  # told as an unknown key
            if isinstance(parsed, EntryKey) and not self._is_due(parsed):
                where = f"index entry {_told(parsed.term)} of {named(kind, parsed.id)}"
                self._examination.found(Code.ENTRY_STALE, where, "there is no such record", [(key, None)])

    def _is_due(self, entry: EntryKey) -> bool:
        if (entry.kind.name, entry.id) in self._left:
            return True
        resource = _RESOURCES.get(entry.kind.name)
        record = self._record(entry)
        if resource is None or record is None:
            # One that is there and cannot be read keeps what it has.
            return resource is not None and self._examination.exists(entry.kind, entry.id)
        return entry.term in resource.terms(record)

    def _record(self, entry: EntryKey) -> Any:  # noqa: ANN401  # a resource of any kind
        record = self._examination.read(entry.kind, entry.id)
        if record is None or entry.kind is not AGENT_EXECUTION:
            return record
        head = self._examination.read(EXECUTION_HEAD, entry.id)
        if head is None:
            return None
        record.status.CopyFrom(head.status)
        return record


def _told(term: Term) -> str:
    return f"{term.index}={term.value!r}"
