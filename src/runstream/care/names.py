"""Names: who has a name holds it, and who holds a name has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runstream.care.examination import named
from runstream.care.findings import Code
from runstream.services.resource_types import AGENTS, INSTANCES
from runstream.storage import keys
from runstream.storage.parsed_keys import NameKey, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from runstream.care.examination import Examination
    from runstream.pipeline.resources import ResourceType
    from runstream.storage.store import Unique

_PREFIX: Final = b"u"
_RESOURCES: Final[Mapping[str, ResourceType[Any]]] = {
    resource.unique("", "").index: resource for resource in (AGENTS, INSTANCES)
}


class Names:
    """Checks names both ways."""

    def __init__(self, examination: Examination) -> None:
        self._examination = examination

    def check(self, resource: ResourceType[Any], record_id: str, record: Message) -> None:
        """Check that a record holds its name. One that another holds is freed by `check_back`, if it may be."""
        unique = _name_of(resource, record)
        key = keys.name(unique)
        holder = self._examination.view.get(key)
        if holder == keys.encode_id(record_id):
            return
        where = named(resource.record, record_id)
        if holder is None:
            told = f"it does not hold its name {unique.value!r}"
            self._examination.found(Code.NAME_MISSING, where, told, [(key, keys.encode_id(record_id))])
        elif self._has(resource, _text(holder), unique):
            told = f"its name {unique.value!r} is held by {_text(holder)!r}, which has it too"
            self._examination.found(Code.NAME_TAKEN, where, told)

    def check_back(self) -> None:
        """Check that each name is held by a record that has it."""
        for key, holder in self._examination.view.pairs(_PREFIX):
            self._examination.advance("names", None)
            try:
                parsed = parse(key)
            except ValueError:
                continue  # told as an unknown key
            if isinstance(parsed, NameKey):
                self._check_holder(key, parsed.unique, _text(holder))

    def _check_holder(self, key: bytes, unique: Unique, holder: str) -> None:
        resource = _RESOURCES.get(unique.index)
        if resource is not None and self._has(resource, holder, unique):
            return
        told = f"it is held by {holder!r}, which is not there or has another name"
        self._examination.found(Code.NAME_STALE, f"{unique.index} {unique.value!r}", told, [(key, None)])

    def _has(self, resource: ResourceType[Any], record_id: str, unique: Unique) -> bool:
        record = self._examination.read(resource.record, record_id)
        if record is None:
            # One that is there and cannot be read keeps what it has.
            return self._examination.exists(resource.record, record_id)
        return _name_of(resource, record) == unique


def _name_of(resource: ResourceType[Any], record: Any) -> Unique:  # noqa: ANN401  # an agent or an instance
    return resource.unique(record.metadata.org, record.metadata.slug)


def _text(holder: bytes) -> str:
    return holder.decode("utf-8", "surrogateescape")
