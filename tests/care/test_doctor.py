from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream.care.doctor import repair
from runstream.care.findings import Code
from runstream.storage import keys
from runstream.storage.offline import OfflineFolder
from runstream.storage.parsed_keys import ChangeKey, EntryKey, ExpiryKey, NameKey, RecordKey, parse
from runstream.storage.records import (
    AGENT,
    AGENT_EXECUTION,
    AGENT_INSTANCE,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    IDEMPOTENCY,
    RECORD_KINDS,
    SESSION,
    STATUS_SNAPSHOT,
    TOMBSTONE,
)
from runstream.storage.store import Term, Unique
from runstream.stored.v1.stored_pb2 import ExecutionHead, ExecutionSecrets, StatusSnapshot
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    ExecutionChange,
)
from tests.care.folders import findings_of, pairs_of, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from runstream.care.doctor import Treatment
    from runstream.care.findings import Finding
    from runstream.storage.overlay import Write
    from runstream.storage.records import AnyKind

Pairs = dict[bytes, bytes]

#: Records that nothing tells again.
GIVEN: tuple[AnyKind, ...] = (AGENT, AGENT_INSTANCE, SESSION, IDEMPOTENCY, TOMBSTONE)
NOBODY = "aex_7zzzzzzzzzzzzzzzzzzzzzzzzz"


def mend(data: Path) -> tuple[Treatment, list[Finding]]:
    """Repair a folder; return what came of it and all that was told."""
    told: list[Finding] = []
    with OfflineFolder.open(data, purpose="test") as folder:
        return repair(folder, told.append), told


def records(pairs: Pairs, kind: AnyKind) -> Iterator[tuple[str, Any]]:
    """All records of a kind, by id."""
    prefix = keys.records(kind)
    for key, value in pairs.items():
        if key.startswith(prefix):
            yield keys.decode_id(key[len(prefix) :]), kind.message.FromString(value)


def in_phase(pairs: Pairs, phase: int) -> tuple[str, ExecutionHead]:
    """An execution in a phase, with its head."""
    return next(pair for pair in records(pairs, EXECUTION_HEAD) if pair[1].status.phase == phase)


def changed_head(pairs: Pairs, phase: int, **fields: Any) -> list[Write]:  # noqa: ANN401
    """Write other fields into the head of an execution in a phase."""
    execution_id, head = in_phase(pairs, phase)
    for name, value in fields.items():
        setattr(head, name, value)
    return [(keys.record(EXECUTION_HEAD, execution_id), head.SerializeToString())]


def first(pairs: Pairs, sort: type) -> bytes:
    """The first key of a sort."""
    return next(key for key in pairs if isinstance(parse(key), sort))


def lose(key: bytes) -> list[Write]:
    return [(key, None)]


def wrong_phase(pairs: Pairs) -> list[Write]:
    execution_id, head = in_phase(pairs, EXECUTION_COMPLETED)
    head.status.phase = EXECUTION_PENDING
    return [(keys.record(EXECUTION_HEAD, execution_id), head.SerializeToString())]


def wrong_record(pairs: Pairs) -> list[Write]:
    execution_id, record = next(records(pairs, AGENT_EXECUTION))
    record.metadata.labels["other"] = "label"
    return [(keys.record(AGENT_EXECUTION, execution_id), record.SerializeToString())]


def lost_record(pairs: Pairs) -> list[Write]:
    return lose(keys.record(AGENT_EXECUTION, in_phase(pairs, EXECUTION_IN_PROGRESS)[0]))


def entry_with_value(pairs: Pairs) -> list[Write]:
    return [(first(pairs, EntryKey), b"something")]


#: Damage that is mended until every bit is as it was.
UNDONE: dict[str, tuple[Code, Callable[[Pairs], list[Write]]]] = {
    "an entry is lost": (Code.ENTRY_MISSING, lambda pairs: lose(first(pairs, EntryKey))),
    "an entry has a value": (Code.UNREADABLE, entry_with_value),
    "an entry of nothing": (
        Code.ENTRY_STALE,
        lambda _: [(keys.entry(AGENT_EXECUTION, NOBODY, Term("phase", "1")), b"")],
    ),
    "an entry of another phase": (
        Code.ENTRY_STALE,
        lambda pairs: [(keys.entry(AGENT_EXECUTION, in_phase(pairs, EXECUTION_COMPLETED)[0], Term("phase", "1")), b"")],
    ),
    "an entry of a kind without an index": (
        Code.ENTRY_STALE,
        lambda _: [(keys.entry(TOMBSTONE, NOBODY, Term("phase", "1")), b"")],
    ),
    "a name is lost": (Code.NAME_MISSING, lambda pairs: lose(first(pairs, NameKey))),
    "a name of nobody": (Code.NAME_STALE, lambda _: [(keys.name(Unique("agent_slug", "", "nobody")), b"agt_1")]),
    "a name of another index": (Code.NAME_STALE, lambda _: [(keys.name(Unique("other", "", "nobody")), b"agt_1")]),
    "a name held by another": (Code.NAME_STALE, lambda pairs: [(first(pairs, NameKey), b"\xff")]),
    "an expiry is lost": (Code.EXPIRY_MISSING, lambda pairs: lose(first(pairs, ExpiryKey))),
    "an expiry of nothing": (Code.EXPIRY_STALE, lambda _: [(keys.expiry(7, "nothing"), b"")]),
    "a head is of another phase": (Code.HEAD_DIFFERS, wrong_phase),
    "a head counts other bytes": (
        Code.HEAD_DIFFERS,
        lambda pairs: changed_head(pairs, EXECUTION_FAILED, log_bytes=5),
    ),
    "a head is of another agent": (
        Code.HEAD_DIFFERS,
        lambda pairs: changed_head(pairs, EXECUTION_PENDING, agent_id="agt_1"),
    ),
    "what is queued has a lease": (
        Code.LEASE_WITHOUT_WORK,
        lambda pairs: changed_head(pairs, EXECUTION_PENDING, runner_id="r"),
    ),
    "what has ended has a lease": (
        Code.LEASE_WITHOUT_WORK,
        lambda pairs: changed_head(pairs, EXECUTION_COMPLETED, runner_id="r", driven_outside=True),
    ),
    "a record is another": (Code.RECORD_DIFFERS, wrong_record),
    "a record is lost": (Code.RECORD_MISSING, lost_record),
    "changes are left of nothing": (
        Code.CHANGES_LEFT,
        lambda _: [(keys.change(NOBODY, revision), b"") for revision in (1, 2, 5)],
    ),
    "changes stand behind a deletion": (
        Code.REST_BROKEN,
        lambda pairs: [(keys.change(next(records(pairs, TOMBSTONE))[0], 9), b"")],
    ),
    "secrets are left of an end": (
        Code.SECRETS_LEFT,
        lambda pairs: [(keys.record(EXECUTION_SECRETS, in_phase(pairs, EXECUTION_CANCELLED)[0]), b"")],
    ),
    "secrets are left of nothing": (
        Code.SECRETS_LEFT,
        lambda _: [(keys.record(EXECUTION_SECRETS, NOBODY), ExecutionSecrets(values={"a": "b"}).SerializeToString())],
    ),
    "a snapshot is left of nothing": (
        Code.SNAPSHOT_DIFFERS,
        lambda _: [(keys.record(STATUS_SNAPSHOT, NOBODY), b"")],
    ),
    "a snapshot is no fold": (
        Code.SNAPSHOT_DIFFERS,
        lambda pairs: [
            (
                keys.record(STATUS_SNAPSHOT, in_phase(pairs, EXECUTION_COMPLETED)[0]),
                StatusSnapshot(revision=1).SerializeToString(),
            )
        ],
    ),
    "a snapshot is of no revision": (
        Code.SNAPSHOT_DIFFERS,
        lambda pairs: [
            (
                keys.record(STATUS_SNAPSHOT, in_phase(pairs, EXECUTION_COMPLETED)[0]),
                StatusSnapshot(revision=99).SerializeToString(),
            )
        ],
    ),
    "a snapshot is unreadable": (
        Code.UNREADABLE,
        lambda pairs: [(keys.record(STATUS_SNAPSHOT, in_phase(pairs, EXECUTION_COMPLETED)[0]), b"\xff")],
    ),
}


def changed_change(pairs: Pairs, at: int, **fields: Any) -> list[Write]:  # noqa: ANN401
    """Write other fields into a change of an execution that has completed."""
    execution_id, _ = in_phase(pairs, EXECUTION_COMPLETED)
    change = ExecutionChange.FromString(pairs[keys.change(execution_id, at)])
    for name, value in fields.items():
        setattr(change, name, value)
    return [(keys.change(execution_id, at), change.SerializeToString())]


def beyond(pairs: Pairs) -> list[Write]:
    execution_id, head = in_phase(pairs, EXECUTION_IN_PROGRESS)
    change = ExecutionChange(execution_id=execution_id, revision=head.revision + 1, attempt=head.status.attempt)
    change.status.SetInParent()
    return [(keys.change(execution_id, head.revision + 1), change.SerializeToString())]


def forgotten_agent(pairs: Pairs) -> list[Write]:
    return lose(keys.record(AGENT, in_phase(pairs, EXECUTION_PENDING)[1].agent_id))


def same_name(pairs: Pairs) -> list[Write]:
    (_, one), (other_id, other), *_ = records(pairs, AGENT)
    other.metadata.slug = one.metadata.slug
    return [(keys.record(AGENT, other_id), other.SerializeToString())]


def dead_lease(pairs: Pairs) -> list[Write]:
    execution_id, head = next(
        pair for pair in records(pairs, EXECUTION_HEAD) if pair[1].driven_outside and not pair[1].status.attempt
    )
    head.driven_outside = False
    return [(keys.record(EXECUTION_HEAD, execution_id), head.SerializeToString())]


def lease_of_no_attempt(pairs: Pairs) -> list[Write]:
    ((_, value),) = dead_lease(pairs)
    head = ExecutionHead.FromString(value or b"")
    head.runner_id = "r"
    return [(dead_lease(pairs)[0][0], head.SerializeToString())]


#: Damage that nothing else tells how to mend.
LASTING: dict[str, tuple[Code, Callable[[Pairs], list[Write]]]] = {
    "a key is of no grammar": (Code.UNKNOWN_KEY, lambda _: [(b"zebra", b"stripes")]),
    "a change is lost": (
        Code.CHANGE_MISSING,
        lambda pairs: lose(keys.change(in_phase(pairs, EXECUTION_COMPLETED)[0], 1)),
    ),
    "the last change is lost": (
        Code.CHANGE_MISSING,
        lambda pairs: lose(keys.change(in_phase(pairs, EXECUTION_COMPLETED)[0], 2)),
    ),
    "a change is unreadable": (
        Code.UNREADABLE,
        lambda pairs: [(keys.change(in_phase(pairs, EXECUTION_COMPLETED)[0], 2), b"\xff")],
    ),
    "a change is of another": (Code.CHANGE_UNFIT, lambda pairs: changed_change(pairs, 2, execution_id=NOBODY)),
    "a change is of another revision": (Code.CHANGE_UNFIT, lambda pairs: changed_change(pairs, 2, revision=3)),
    "a change is of a lost attempt": (Code.ATTEMPT_OUT_OF_ORDER, lambda pairs: changed_change(pairs, 2, attempt=3)),
    "an end is not marked": (Code.END_MISMARKED, lambda pairs: changed_change(pairs, 2, terminal=False)),
    "a log goes on behind its head": (Code.CHANGE_BEYOND_HEAD, beyond),
    "a head is lost": (
        Code.HEAD_MISSING,
        lambda pairs: lose(keys.record(EXECUTION_HEAD, in_phase(pairs, EXECUTION_COMPLETED)[0])),
    ),
    "an agent is lost": (Code.REFERENCE_BROKEN, forgotten_agent),
    "an agent is unreadable": (
        Code.UNREADABLE,
        lambda pairs: [(keys.record(AGENT, in_phase(pairs, EXECUTION_PENDING)[1].agent_id), b"\xff")],
    ),
    "two agents have one name": (Code.NAME_TAKEN, same_name),
    "a session is lost": (
        Code.REFERENCE_BROKEN,
        lambda pairs: lose(keys.record(SESSION, in_phase(pairs, EXECUTION_COMPLETED)[1].session_id)),
    ),
    "an instance is lost": (
        Code.REFERENCE_BROKEN,
        lambda pairs: lose(keys.record(AGENT_INSTANCE, next(records(pairs, AGENT_INSTANCE))[0])),
    ),
    "an idempotency record is unreadable": (
        Code.UNREADABLE,
        lambda pairs: [(keys.record(IDEMPOTENCY, next(records(pairs, IDEMPOTENCY))[0]), b"\xff")],
    ),
    "secrets are lost": (
        Code.SECRETS_DIFFER,
        lambda pairs: lose(keys.record(EXECUTION_SECRETS, next(records(pairs, EXECUTION_SECRETS))[0])),
    ),
    "somebody at work is forgotten": (Code.WORK_WITHOUT_LEASE, dead_lease),
    "a lease is of no attempt": (Code.LEASE_WITHOUT_ATTEMPT, lease_of_no_attempt),
    "it is deleted and live": (
        Code.DELETED_AND_LIVE,
        lambda pairs: [(keys.record(TOMBSTONE, in_phase(pairs, EXECUTION_PENDING)[0]), b"")],
    ),
}


def test_the_folder_of_these_tests_has_one_of_everything(sound: Path) -> None:
    """Else the tests after this one would promise less than they say."""
    pairs = pairs_of(sound)
    assert all(any(True for _ in records(pairs, kind)) for kind in RECORD_KINDS)
    assert {type(parse(key)) for key in pairs} == {RecordKey, ChangeKey, EntryKey, NameKey, ExpiryKey}
    assert any(head.runner_id for _, head in records(pairs, EXECUTION_HEAD))
    assert any(head.parent_id for _, head in records(pairs, EXECUTION_HEAD))
    assert any(head.approvals for _, head in records(pairs, EXECUTION_HEAD))


def test_nothing_is_found_in_a_sound_folder_and_nothing_changed(data: Path) -> None:
    """What a server leaves is sound, and a repair leaves it so, bit for bit."""
    before = pairs_of(data)
    assert findings_of(data) == []
    treatment, told = mend(data)
    assert (treatment.mended.total(), told) == (0, [])
    assert treatment.after.sound
    assert pairs_of(data) == before


def test_an_empty_folder_is_sound(tmp_path: Path) -> None:
    """A folder in which nothing was ever done has no findings."""
    OfflineFolder.make(tmp_path / "data", purpose="test").close()
    assert findings_of(tmp_path / "data") == []


@pytest.mark.parametrize("what", UNDONE)
def test_what_can_be_derived_again_is_found_and_mended(data: Path, what: str) -> None:
    """The damage is told by its code, and a repair brings back every bit."""
    code, damage = UNDONE[what]
    before = pairs_of(data)
    write(data, damage(before))
    assert pairs_of(data) != before
    found = findings_of(data)
    assert [finding.code for finding in found if finding.repairable], found
    assert code in {finding.code for finding in found}
    treatment, _ = mend(data)
    assert treatment.after.sound
    assert treatment.mended[code] > 0
    assert pairs_of(data) == before


@pytest.mark.parametrize("what", LASTING)
def test_what_cannot_be_derived_is_told_and_left(data: Path, what: str) -> None:
    """The damage is told by its code, and a repair does not touch the damaged keys, nor any log."""
    code, damage = LASTING[what]
    before = pairs_of(data)
    writes = damage(before)
    write(data, writes)
    assert (code, False) in {(finding.code, finding.repairable) for finding in findings_of(data)}
    treatment, told = mend(data)
    assert not treatment.after.sound
    assert treatment.after.repairable.total() == 0
    assert code in {finding.code for finding in told}
    after = pairs_of(data)
    assert all(after.get(key) == value for key, value in writes)
    assert logs_of(after) == logs_of(before | {key: value for key, value in writes if value is not None}, writes)


def test_a_snapshot_that_is_lost_is_nothing_to_tell(data: Path) -> None:
    """A snapshot only saves time; a log without one is as good."""
    pairs = pairs_of(data)
    write(data, [(keys.record(STATUS_SNAPSHOT, record_id), None) for record_id, _ in records(pairs, STATUS_SNAPSHOT)])
    assert findings_of(data) == []


def test_what_hangs_on_a_mend_is_mended_too(data: Path) -> None:
    """All index entries, names, expiries, snapshots and records of executions lost at once come back."""
    before = pairs_of(data)
    derived = [key for key in before if key[:1] in (b"i", b"u", b"e") or key.startswith(keys.records(AGENT_EXECUTION))]
    write(data, [(key, None) for key in derived])
    assert len(findings_of(data)) >= len(derived)
    treatment, _ = mend(data)
    assert treatment.after.sound
    assert pairs_of(data) == before


def test_a_check_that_is_broken_off_leaves_the_folder_as_it_was(data: Path) -> None:
    """Interrupted in the middle, whatever it had open is given back."""
    before = pairs_of(data)
    write(data, [(b"zebra", b"stripes"), *lost_record(before)])

    def interrupt(finding: Finding) -> None:
        if finding.code is Code.RECORD_MISSING:
            raise KeyboardInterrupt

    with OfflineFolder.open(data, purpose="test") as folder, pytest.raises(KeyboardInterrupt):
        repair(folder, interrupt)
    mend(data)
    assert pairs_of(data) == {**before, b"zebra": b"stripes"}


def test_an_impossible_phase_is_told(data: Path) -> None:
    """A log in which something follows an end that cannot be left is told, though it folds."""
    pairs = pairs_of(data)
    execution_id, head = in_phase(pairs, EXECUTION_COMPLETED)
    change = ExecutionChange(execution_id=execution_id, revision=head.revision + 1)
    change.change_time.seconds = 1
    change.status.phase = EXECUTION_PENDING
    head.revision += 1
    write(
        data,
        [
            (keys.change(execution_id, head.revision), change.SerializeToString()),
            (keys.record(EXECUTION_HEAD, execution_id), head.SerializeToString()),
        ],
    )
    assert Code.PHASE_IMPOSSIBLE in {finding.code for finding in findings_of(data)}


def _is_missed(pairs: Pairs, key: bytes) -> bool:
    """Whether a key stands or falls with another one, which tells of its loss."""
    parsed = parse(key)
    if isinstance(parsed, RecordKey):
        return parsed.kind is not STATUS_SNAPSHOT
    # The log of a deleted execution goes from its beginning: that is no loss.
    return not (isinstance(parsed, ChangeKey) and keys.record(TOMBSTONE, parsed.execution_id) in pairs)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(choice=st.randoms(use_true_random=False), count=st.integers(1, 4))
def test_whatever_is_lost_is_missed(sound: Path, choice: Random, count: int) -> None:
    """Of any keys that are lost the doctor tells, and after a repair nothing is left that it could mend."""
    before = pairs_of(sound)
    lost = choice.sample(sorted(key for key in before if _is_missed(before, key)), count)
    with copied(sound) as data:
        write(data, [(key, None) for key in lost])
        assert findings_of(data)
        _check_repair(data, before)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(choice=st.randoms(use_true_random=False), value=st.binary(max_size=40), flip=st.booleans())
def test_whatever_is_altered_a_repair_makes_nothing_worse(
    sound: Path,
    choice: Random,
    value: bytes,
    flip: bool,  # noqa: FBT001  # as Hypothesis passes it
) -> None:
    """Any value altered in any way, or any key added: nothing crashes, no log is touched, no mend is left over."""
    before = pairs_of(sound)
    key = choice.choice(sorted(before))
    if flip and before[key]:
        altered = bytearray(before[key])
        altered[choice.randrange(len(altered))] ^= 1 << choice.randrange(8)
        writes = [(key, bytes(altered))]
    elif flip:
        writes = [(key[: choice.randrange(1, len(key))] + value, value)]
    else:
        writes = [(key, value)]
    with copied(sound) as data:
        write(data, writes)
        _check_repair(data, before)


@contextmanager
def copied(data: Path) -> Iterator[Path]:
    """Give a copy of a folder for the length of the block."""
    with tempfile.TemporaryDirectory() as parent:
        yield shutil.copytree(data, Path(parent) / "data")


def _check_repair(data: Path, sound: Pairs) -> None:
    """Repair; check that no log of an execution changed, nothing mendable is left, and a repeat does nothing."""
    damaged = pairs_of(data)
    treatment, _ = mend(data)
    assert treatment.after.repairable.total() == 0
    after = pairs_of(data)
    live = {record_id for kind in (EXECUTION_HEAD, AGENT_EXECUTION) for record_id in ids_of(damaged, kind)}
    assert of_live(logs_of(after), live) == of_live(logs_of(damaged), live)
    # What was neither damaged nor derived is as it was.
    kept = [key for key in damaged if damaged[key] == sound.get(key) and _is_given(key)]
    assert all(after.get(key) == damaged[key] for key in kept)
    assert Counter(finding.code for finding in findings_of(data)) == Counter(treatment.after.found)
    assert mend(data)[0].mended.total() == 0


def _is_given(key: bytes) -> bool:
    return any(key.startswith(keys.records(kind)) for kind in GIVEN)


def ids_of(pairs: Pairs, kind: AnyKind) -> Iterator[str]:
    prefix = keys.records(kind)
    return (key[len(prefix) :].decode("utf-8", "replace") for key in pairs if key.startswith(prefix))


def logs_of(pairs: Pairs, lost: list[Write] | None = None) -> Pairs:
    """All changes, but for those that were lost."""
    gone = {key for key, value in lost or () if value is None}
    return {key: value for key, value in pairs.items() if key[:1] == b"c" and key not in gone}


def of_live(logs: Pairs, live: set[str]) -> Pairs:
    return {
        key: value
        for key, value in logs.items()
        if any(key.startswith(keys.changes(execution_id)) for execution_id in live)
    }
