"""The doctor: looks whether a data folder is as it must be, and mends what can be derived again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runstream.care.entries import Entries
from runstream.care.examination import Examination, Mends, no_progress
from runstream.care.executions import ExecutionCheck
from runstream.care.expiries import Expiries
from runstream.care.keyspace import KeySpace
from runstream.care.names import Names
from runstream.care.references import References
from runstream.care.resources import ResourceCheck
from runstream.storage.records import EXECUTION_HEAD, IDEMPOTENCY

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.care.examination import Progress
    from runstream.care.findings import Finding
    from runstream.storage.offline import OfflineFolder

#: How often a folder is mended and looked at again: what was mended may show what hangs on it.
_ROUNDS: Final = 5


@dataclass(slots=True)
class Diagnosis:
    """What one look at a folder has found."""

    #: How many findings there are, by code; and of these, how many can be mended.
    found: Counter[str] = field(default_factory=Counter)
    repairable: Counter[str] = field(default_factory=Counter)
    #: How many records there are, by the name of their kind.
    records: Counter[str] = field(default_factory=Counter)

    @property
    def sound(self) -> bool:
        """Whether everything is as it must be."""
        return not self.found


@dataclass(slots=True)
class Treatment:
    """What came of a repair."""

    #: How many findings were mended, by code.
    mended: Counter[str]
    #: What the last look has found: nothing that can be mended.
    after: Diagnosis


def diagnose(
    folder: OfflineFolder,
    report: Callable[[Finding], None],
    progress: Progress = no_progress,
) -> Diagnosis:
    """Look at everything in a folder and tell of what is not as it must be; changes nothing.

    Holds one execution at a time, and of its log the fold. Raises `FolderUnusable` for what the disk cannot read.
    """
    return _look(folder, report, progress, None)


def repair(
    folder: OfflineFolder,
    report: Callable[[Finding], None],
    progress: Progress = no_progress,
) -> Treatment:
    """Mend what can be derived again, then look again, until nothing is left of that; durable when it returns.

    `report` is told of all that is mended, and at last of what is left.
    """
    mended: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        diagnosis = _look(folder, lambda finding: _tell_if_mended(finding, report), progress, Mends(folder))
        mended += diagnosis.repairable
        if not diagnosis.repairable:
            break
    return Treatment(mended, diagnose(folder, report, progress))


def _tell_if_mended(finding: Finding, report: Callable[[Finding], None]) -> None:
    if finding.repairable:
        report(finding)


def _look(
    folder: OfflineFolder,
    report: Callable[[Finding], None],
    progress: Progress,
    mends: Mends | None,
) -> Diagnosis:
    with folder.view() as view:
        examination = Examination(view, report, progress, mends)
        space = KeySpace(examination)
        space.check()
        entries = Entries(examination, space.entries)
        names, references = Names(examination), References(examination)
        ResourceCheck(examination, entries, names, references, space.records).check()
        ExecutionCheck(examination, entries, references, space.records[EXECUTION_HEAD.name]).check()
        entries.check_back()
        names.check_back()
        Expiries(examination, space.records[IDEMPOTENCY.name]).check()
        if mends is not None:
            mends.flush()
    diagnosis = Diagnosis(records=space.records)
    for (code, repairable), count in examination.counts.items():
        diagnosis.found[code] += count
        if repairable:
            diagnosis.repairable[code] += count
    return diagnosis
