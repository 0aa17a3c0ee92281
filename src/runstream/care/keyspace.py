"""The key space: every key is of the grammar, and how many there are of each sort."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from runstream.care.findings import Code
from runstream.storage.parsed_keys import EntryKey, RecordKey, parse

if TYPE_CHECKING:
    from runstream.care.examination import Examination


class KeySpace:
    """Goes through all keys once; this alone reads every block of the database."""

    def __init__(self, examination: Examination) -> None:
        self._examination = examination
        #: How many records and index entries there are, by the name of their kind.
        self.records: Counter[str] = Counter()
        self.entries: Counter[str] = Counter()

    def check(self) -> None:
        """Tell of keys that nothing of this version writes, and count the others."""
        for key, _ in self._examination.view.pairs():
            self._examination.advance("keys", None)
            try:
                parsed = parse(key)
            except ValueError:
                told = "nothing of this version writes such a key; left as it is"
                self._examination.found(Code.UNKNOWN_KEY, f"key {key.hex()}", told)
                continue
            if isinstance(parsed, RecordKey):
                self.records[parsed.kind.name] += 1
            elif isinstance(parsed, EntryKey):
                self.entries[parsed.kind.name] += 1
