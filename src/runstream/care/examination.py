"""An examination under way: what it reads, whom it tells, and what it mends."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from runstream.care.findings import Code, Finding
from runstream.storage import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runstream.storage.offline import OfflineFolder, View
    from runstream.storage.overlay import Write
    from runstream.storage.records import RecordKind

M = TypeVar("M", bound=Message)

#: How many writes one synced batch of a repair has at most.
_BATCH: Final = 1_000
#: After how many steps the progress is told anew.
_TELL_EVERY: Final = 500


class Progress(Protocol):
    """Is told how far a long piece of work has come."""

    def __call__(self, step: str, done: int, total: int | None, /) -> None:
        """Take note; `total` is None when it is not known."""
        ...


def no_progress(_step: str, _done: int, _total: int | None) -> None:
    """Tell nobody."""


class Mends:
    """The writes of a repair, in synced batches: a crash leaves each mend whole or not done."""

    def __init__(self, folder: OfflineFolder) -> None:
        self._folder = folder
        self._writes: list[Write] = []

    def add(self, writes: Iterable[Write]) -> None:
        """Have writes carried out, sooner or later."""
        self._writes += writes
        if len(self._writes) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Carry out what is left; on disk when it returns."""
        if self._writes:
            self._folder.write(self._writes)
            self._writes = []


class Examination:
    """One look at one state of a folder."""

    def __init__(
        self,
        view: View,
        report: Callable[[Finding], None],
        progress: Progress = no_progress,
        mends: Mends | None = None,
    ) -> None:
        """Take the state, who is told of findings, and where mends go; without `mends` nothing is mended."""
        self.view = view
        self.counts: Counter[tuple[Code, bool]] = Counter()
        self._report = report
        self._progress = progress
        self._mends = mends
        self._done: Counter[str] = Counter()

    def found(self, code: Code, where: str, told: str, mend: Iterable[Write] = ()) -> None:
        """Tell of a finding; `mend` is what would mend it, nothing when it cannot be derived again."""
        writes = list(mend)
        finding = Finding(code, where, told, repairable=bool(writes))
        self.counts[finding.code, finding.repairable] += 1
        self._report(finding)
        if self._mends is not None:
            self._mends.add(writes)

    def advance(self, step: str, total: int | None) -> None:
        """Count one more of what a step goes through."""
        self._done[step] += 1
        if self._done[step] % _TELL_EVERY == 1 or self._done[step] == total:
            self._progress(step, self._done[step], total)

    def read(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return a record; None when it is not there or cannot be read, of which others tell."""
        value = self.view.get(keys.record(kind, record_id))
        return None if value is None else decoded(kind.message, value)

    def exists(self, kind: RecordKind[M], record_id: str) -> bool:
        """Tell whether there is a record, readable or not."""
        return self.view.get(keys.record(kind, record_id)) is not None


def decoded(message: type[M], value: bytes) -> M | None:
    """Return the message in a value, None when it holds none."""
    try:
        return message.FromString(value)
    except DecodeError:
        return None


def bits(message: Message) -> bytes:
    """Return a message as bytes that are the same for the same message."""
    return message.SerializeToString(deterministic=True)


def named(kind: RecordKind[M], record_id: str) -> str:
    """Return a record in words."""
    return f"{kind.name.replace('_', ' ')} {record_id}"
