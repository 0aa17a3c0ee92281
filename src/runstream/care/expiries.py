"""Expiries: every idempotency record goes at its time, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.care.examination import decoded, named
from runstream.care.findings import Code
from runstream.model.times import to_millis
from runstream.storage import keys
from runstream.storage.parsed_keys import ExpiryKey, parse
from runstream.storage.records import IDEMPOTENCY

if TYPE_CHECKING:
    from runstream.care.examination import Examination
    from runstream.stored.v1.stored_pb2 import IdempotencyRecord


class Expiries:
    """Checks idempotency records and their expiries, both ways."""

    def __init__(self, examination: Examination, total: int) -> None:
        self._examination = examination
        self._total = total

    def check(self) -> None:
        """Go through the records, then through the expiries."""
        prefix = keys.records(IDEMPOTENCY)
        for key, value in self._examination.view.pairs(prefix):
            self._examination.advance("idempotency keys", self._total)
            try:
                record_id = keys.decode_id(key[len(prefix) :])
            except ValueError:
                continue  # told as an unknown key
            self._check_record(record_id, value)
        for key, _ in self._examination.view.pairs(keys.EXPIRY):
            self._examination.advance("expiries", self._total)
            try:
                parsed = parse(key)
            except ValueError:
                continue
            if isinstance(parsed, ExpiryKey):
                self._check_expiry(key, parsed)

    def _check_record(self, record_id: str, value: bytes) -> None:
        record = decoded(IDEMPOTENCY.message, value)
        time_ms = None if record is None else _expiry_of(record)
        where = named(IDEMPOTENCY, record_id)
        if time_ms is None:
            self._examination.found(Code.UNREADABLE, where, "it cannot be read, or has no time when it goes")
            return
        key = keys.expiry(time_ms, record_id)
        if self._examination.view.get(key) is None:
            self._examination.found(Code.EXPIRY_MISSING, where, "nothing says when it goes", [(key, b"")])

    def _check_expiry(self, key: bytes, expiry: ExpiryKey) -> None:
        record = self._examination.read(IDEMPOTENCY, expiry.id)
        if record is None and self._examination.exists(IDEMPOTENCY, expiry.id):
            return  # it cannot be read, which is told
        time_ms = None if record is None else _expiry_of(record)
        if time_ms is None or max(0, time_ms) != expiry.time_ms:
            where = f"expiry of {named(IDEMPOTENCY, expiry.id)}"
            told = "there is no such record, or it goes at another time"
            self._examination.found(Code.EXPIRY_STALE, where, told, [(key, None)])


def _expiry_of(record: IdempotencyRecord) -> int | None:
    """Return when a record goes, in milliseconds; None when it does not say."""
    if not record.HasField("expire_time"):
        return None
    try:
        return to_millis(record.expire_time)
    except ValueError:
        return None
