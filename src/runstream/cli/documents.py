"""Documents: what the files of `-f` hold, as the messages of the API."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from runstream.cli import yaml_text
from runstream.cli.failure import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

M = TypeVar("M", bound=Message)

_STEP: Final = re.compile(r"^Failed to parse (\w+) field: ")
_UNKNOWN: Final = re.compile(r'has no field named "([^"]*)"')
#: What ParseDict quotes of the value, which may be a secret.
_QUOTED_VALUE: Final = re.compile(r" which is .*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file."""

    place: str
    """Where it stands, for messages: `agents.yaml, document 2`."""

    content: dict[str, object]

    @property
    def kind(self) -> str:
        """The kind it says it is; empty when it says none. Raises `Misuse`."""
        kind = self.content.get("kind", "")
        if not isinstance(kind, str):
            raise Misuse(f"{self.place}: `kind` is the name of a kind")
        return kind

    def parse(self, message: M) -> M:
        """Fill `message` with the document and return it. Raises `Misuse`."""
        content = {key: value for key, value in self.content.items() if key != "status"}
        return self._parse(content, message)

    def parse_whole(self, message: M) -> M:
        """Fill `message` with the document, an own `status` included. Raises `Misuse`."""
        return self._parse(self.content, message)

    def _parse(self, content: dict[str, object], message: M) -> M:
        try:
            return json_format.ParseDict(content, message)
        except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
            raise Misuse(f"{self.place}: {_complaint(str(error), message)}") from None
        except RecursionError:
            raise Misuse(f"{self.place}: nested too deep") from None


def read(files: Sequence[Path]) -> list[Document]:
    """Return the documents of `files`, in order; `-` is the standard input. Raises `Misuse`."""
    documents = [document for file in files for document in _read_one(file)]
    if not documents:
        names = ", ".join(str(file) for file in files)
        raise Misuse(f"{names}: there is no document in it")
    return documents


def parse_text(text: str, place: str) -> list[Document]:
    """Return the documents of `text`; a list stands for its entries. Raises `Misuse`."""
    try:
        values = yaml_text.load_all(text)
    except ValueError as error:
        raise Misuse(f"{place}: {error}") from None
    found = list(_entries(values))
    many = len(found) > 1
    return [
        _document(value, f"{place}, document {number}" if many else place)
        for number, value in enumerate(found, start=1)
    ]


def read_text(file: Path) -> str:
    """Return the text of a file; `-` is the standard input. Raises `Misuse`."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise Misuse(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Misuse(f"{file}: not UTF-8 text") from None


def _read_one(file: Path) -> list[Document]:
    return parse_text(read_text(file), "standard input" if str(file) == "-" else str(file))


def _entries(values: Iterable[object]) -> Iterator[object]:
    """Yield the single documents; what `list` prints is a document with `entries`."""
    for value in values:
        if isinstance(value, list):
            yield from value
        elif isinstance(value, dict) and isinstance(value.get("entries"), list):
            yield from value["entries"]
        elif value is not None:
            yield value


def _document(value: object, place: str) -> Document:
    if not isinstance(value, dict):
        raise Misuse(f"{place}: a document is a mapping, as in `kind: Agent`")
    return Document(place, value)


def _complaint(error: str, message: Message) -> str:
    """Return what ParseDict said as `path: what is wrong`, without values."""
    path: list[str] = []
    while step := _STEP.match(error):
        path.append(step.group(1))
        error = error[step.end() :]
    where = ".".join(path)
    if "runtime_env" in path:
        return f"{where}: an entry is `KEY: {{value: TEXT, is_secret: true or false}}`"
    unknown = _UNKNOWN.search(error)
    if unknown:
        known = ", ".join(_field_names(message, path))
        return f"{where or 'document'}: no field {unknown.group(1)!r}; there are {known}"
    return f"{where or 'document'}: {_QUOTED_VALUE.sub('', error).rstrip('. ')}"


def _field_names(message: Message, path: Sequence[str]) -> list[str]:
    """Return the fields that the message at `path` has."""
    descriptor = message.DESCRIPTOR
    for name in path:
        field = descriptor.fields_by_name.get(name)
        if field is None or field.message_type is None:
            break
        descriptor = field.message_type
        if descriptor.GetOptions().map_entry:
            descriptor = descriptor.fields_by_name["value"].message_type or descriptor
    return [field.name for field in descriptor.fields]
