r"""Transfer files: executions with their whole logs, and what they refer to, as lines of JSON.

    file      = header resource* execution* … end        a resource stands before the first line that needs it
    header    = {"runstream_export": {"format", "version", "server", "time", "filter" or "ids"}}
    resource  = {"agent": …, "default_instance": …} | {"agent_instance": …} | {"session": …}
    execution = {"execution": {"id", "revision", "phase", "parent_deleted"}}, then a {"change": …} for each revision
    end       = {"end": {counts, "sha256"}}              the sum is over all bytes of the lines before it

Messages are proto3 JSON with the field names of the protos, keys sorted, so that the same execution makes the same
lines. A file without its last line is torn.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from google.protobuf import json_format

from runstream.cli.failure import Failure

if TYPE_CHECKING:
    from google.protobuf.message import Message

FORMAT: Final = 1
HEADER: Final = "runstream_export"
_COUNTED: Final = ("agent", "agent_instance", "session", "execution", "change")


def plain(message: Message) -> dict[str, Any]:
    """Return a message as it stands in a file."""
    made: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return made


def line_of(value: dict[str, Any]) -> bytes:
    """Return a line, its end included."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"


class TransferWriter:
    """Writes the lines of one file, counts them, and sums them up."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))

    def write(self, line: bytes, kind: str = "") -> None:
        """Write a line; one of a kind is counted."""
        self._file.write(line)
        self._sum.update(line)
        if kind:
            self.counts[kind] += 1

    def end(self) -> None:
        """Write the last line."""
        counts = {f"{name}s": count for name, count in self.counts.items()}
        self._file.write(line_of({"end": counts | {"sha256": self._sum.hexdigest()}}))
        self._file.flush()


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file that was read to its end holds."""

    header: dict[str, Any]
    counts: dict[str, int]
    #: How many of the executions had not ended when they were exported.
    live: int


def survey(file: IO[bytes], place: str, terminal: frozenset[str]) -> Survey:
    """Read a whole file and check it; `terminal` are the names of the phases in which an execution has ended.

    Raises `Failure`, reason TRANSFER_UNUSABLE, for a file that is torn, altered, or of another format.
    """
    digest, counts, live, header = hashlib.sha256(), Counter[str](), 0, None
    for number, line in enumerate(file, start=1):
        value = parsed(line, place, number)
        if number == 1:
            header = _header(value, place)
        elif "end" in value:
            _check_end(value["end"], digest.hexdigest(), counts, place)
            if file.read(1):
                raise unusable(place, "something stands behind its last line")
            return Survey(header or {}, dict(counts), live)
        counts.update(name for name in _COUNTED if name in value)
        execution = value.get("execution")
        live += isinstance(execution, dict) and execution.get("phase") not in terminal
        digest.update(line)
    raise unusable(place, "its last line is missing: it is torn, or was not written to its end")


def parsed(line: bytes, place: str, number: int) -> dict[str, Any]:
    """Return the value of a line. Raises `Failure`, reason TRANSFER_UNUSABLE."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise unusable(place, f"line {number} is no JSON: the file is torn or altered") from None
    if not isinstance(value, dict):
        raise unusable(place, f"line {number} is no JSON object")
    return value


def unusable(place: str, told: str) -> Failure:
    """Make the failure for a file that cannot be taken."""
    return Failure(f"{place}: {told}", reason="TRANSFER_UNUSABLE")


def _header(value: dict[str, Any], place: str) -> dict[str, Any]:
    header = value.get(HEADER)
    if not isinstance(header, dict):
        raise unusable(place, "it was not written by `runstream export`")
    if header.get("format") != FORMAT:
        raise unusable(place, f"it is of format {header.get('format')}, and this version reads format {FORMAT}")
    return header


def _check_end(end: Any, digest: str, counts: Counter[str], place: str) -> None:  # noqa: ANN401  # as JSON has it
    if not isinstance(end, dict) or end.get("sha256") != digest:
        raise unusable(place, "its lines are not those that its last line sums up: it was altered")
    for name in _COUNTED:
        if end.get(f"{name}s") != counts[name]:
            raise unusable(place, f"it holds {counts[name]} {name}s, and says that there are {end.get(f'{name}s')}")
