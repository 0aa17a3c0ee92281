"""Findings: what is not as it must be in a data folder, by stable codes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """What is wrong. A code keeps its meaning; new ones may come."""

    #: A key that nothing of this version writes.
    UNKNOWN_KEY = "UNKNOWN_KEY"
    #: A value that is not what its key says.
    UNREADABLE = "UNREADABLE"
    #: A record that says that it is another one than its key says.
    ID_DIFFERS = "ID_DIFFERS"

    #: A record, or something else of an execution, that has no head.
    HEAD_MISSING = "HEAD_MISSING"
    #: A head that says of the execution what its log does not.
    HEAD_DIFFERS = "HEAD_DIFFERS"
    #: A head without a record.
    RECORD_MISSING = "RECORD_MISSING"
    #: A record that says what the log does not.
    RECORD_DIFFERS = "RECORD_DIFFERS"

    #: A log that is not 1..n, where n is the revision of the head.
    CHANGE_MISSING = "CHANGE_MISSING"
    #: Changes behind the revision of the head.
    CHANGE_BEYOND_HEAD = "CHANGE_BEYOND_HEAD"
    #: A change that cannot follow those before it.
    CHANGE_UNFIT = "CHANGE_UNFIT"
    #: A phase that cannot follow the one before.
    PHASE_IMPOSSIBLE = "PHASE_IMPOSSIBLE"
    #: Attempts that are not counted one by one, each from a phase in which none was under way.
    ATTEMPT_OUT_OF_ORDER = "ATTEMPT_OUT_OF_ORDER"
    #: A change that is marked as the end and is none, or the other way round.
    END_MISMARKED = "END_MISMARKED"
    #: The rest of the log of a deleted execution that does not lead up to its deletion.
    REST_BROKEN = "REST_BROKEN"
    #: Changes of an execution of which nothing else is left, not even that it was deleted.
    CHANGES_LEFT = "CHANGES_LEFT"
    #: Both an execution and the mark that it was deleted.
    DELETED_AND_LIVE = "DELETED_AND_LIVE"

    #: A stored fold that is not the fold of the log, or that has no log.
    SNAPSHOT_DIFFERS = "SNAPSHOT_DIFFERS"
    #: Secret values that nobody needs any more.
    SECRETS_LEFT = "SECRETS_LEFT"
    #: Secret values that are not those of the variables the record names.
    SECRETS_DIFFER = "SECRETS_DIFFER"

    #: A lease, or work without one, in a phase in which there is no work.
    LEASE_WITHOUT_WORK = "LEASE_WITHOUT_WORK"
    #: Work that nobody does: nothing would ever end it.
    WORK_WITHOUT_LEASE = "WORK_WITHOUT_LEASE"
    #: A lease of no attempt.
    LEASE_WITHOUT_ATTEMPT = "LEASE_WITHOUT_ATTEMPT"

    #: A record that its index does not find.
    ENTRY_MISSING = "ENTRY_MISSING"
    #: An index entry of a record that is not there, or is not what the entry says.
    ENTRY_STALE = "ENTRY_STALE"
    #: A name that its record does not hold.
    NAME_MISSING = "NAME_MISSING"
    #: A name held by a record that is not there, or has another name.
    NAME_STALE = "NAME_STALE"
    #: Two records of one name.
    NAME_TAKEN = "NAME_TAKEN"
    #: An idempotency record that would never go.
    EXPIRY_MISSING = "EXPIRY_MISSING"
    #: An expiry of a record that is not there, or goes at another time.
    EXPIRY_STALE = "EXPIRY_STALE"

    #: A resource that names one that is not there, or that does not fit.
    REFERENCE_BROKEN = "REFERENCE_BROKEN"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be."""

    code: Code
    #: What it is about, in words: a resource and its id, an index entry, a key.
    where: str
    #: What is wrong with it.
    told: str
    #: Whether `--repair` can mend it, since it can be derived again.
    repairable: bool = False

    def plain(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {"code": self.code.value, "where": self.where, "told": self.told, "repairable": self.repairable}
