"""Readers that leave an offer: they are given changes while they wait, and have every one once and in order."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream.model.errors import NotFound
from runstream.v1.agent_execution_pb2 import ExecutionChange
from tests.feed.rig import Rig, no_start, rig
from tests.feed.test_follow import PAUSES, spin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from runstream.feed.hub import Offer

BOUND_SECONDS = 60
pytestmark = pytest.mark.timeout(BOUND_SECONDS + 10)


@pytest_asyncio.fixture(name="feed")
async def _feed(tmp_path: Path) -> AsyncIterator[Rig]:
    async with asyncio.timeout(BOUND_SECONDS), rig(tmp_path / "data") as made:
        yield made


class Manner(NamedTuple):
    """How somebody watches."""

    #: Whether there is room for what is offered, time after time; none at all: no offer is made.
    room: list[bool]
    #: How long a change that was read is looked at.
    pauses: list[int]
    from_snapshot: bool = False
    #: How long it takes until the stream has begun.
    delay: int = 0
    #: Goes away once so many changes are committed.
    until: int | None = None


class Viewer:
    """Somebody who watches an execution, and has room for what is offered now and then."""

    def __init__(self, feed: Rig, execution_id: str, manner: Manner) -> None:
        self._feed = feed
        self._execution_id = execution_id
        self.manner = manner
        self._room = itertools.cycle(manner.room)
        self._looking = False
        #: What else is done while the stream begins.
        self.begin: Callable[[], Awaitable[object]] = no_start
        self.seen: list[ExecutionChange] = []
        #: How many of these were offered.
        self.given = 0

    async def watch(self) -> None:
        """Watch until the end."""
        changes = self._feed.follower.changes(
            self._execution_id, 0, from_snapshot=self.manner.from_snapshot, started=self._started
        )
        pauses = itertools.cycle(self.manner.pauses)
        async with aclosing(changes):
            async for change in changes:
                self.seen.append(ExecutionChange.FromString(change))
                self._looking = True
                await spin(next(pauses))
                self._looking = False

    async def _started(self) -> Offer | None:
        await spin(self.manner.delay)
        await self.begin()
        return self._take if self.manner.room else None

    def _take(self, change: bytes) -> bool:
        assert not self._looking, "it was offered a change while it had another one in its hand"
        if not next(self._room):
            return False
        self.given += 1
        self.seen.append(ExecutionChange.FromString(change))
        return True


READY = Manner(room=[True], pauses=[0])


async def test_a_reader_that_waits_is_given_changes_and_waits_on(feed: Rig) -> None:
    """It comes back for the end alone."""
    execution_id = await feed.create()
    viewer = Viewer(feed, execution_id, READY)
    watching = asyncio.create_task(viewer.watch())
    await spin(20)
    for _ in range(5):
        await feed.commit(execution_id)
        await spin(2)
    assert viewer.given == 5
    await feed.commit(execution_id, end=True)
    await watching
    assert viewer.seen == await feed.log(execution_id)
    assert viewer.given == 5


async def test_a_reader_without_room_reads_the_log_and_is_given_the_next(feed: Rig) -> None:
    """What it did not take is not lost, and does not put it off for good."""
    execution_id = await feed.create()
    viewer = Viewer(feed, execution_id, READY._replace(room=[True, False, True]))
    watching = asyncio.create_task(viewer.watch())
    await spin(20)
    for _ in range(3):
        await feed.commit(execution_id)
        await spin(20)
    assert viewer.seen == await feed.log(execution_id)
    assert viewer.given == 2
    watching.cancel()


async def test_who_commits_has_the_answer_before_all_others_have_the_change(feed: Rig) -> None:
    """However many are given it: a crowd does not hold up the one who writes."""
    execution_id = await feed.create()
    viewers = [Viewer(feed, execution_id, READY) for _ in range(10)]
    watching = [asyncio.create_task(viewer.watch()) for viewer in viewers]
    await spin(20)
    await feed.commit(execution_id)
    assert [viewer.given for viewer in viewers] == [0] * 10
    await spin(1)
    assert [viewer.given for viewer in viewers] == [1] * 10
    for task in watching:
        task.cancel()


async def test_what_a_reader_has_read_is_not_given_to_it_again(feed: Rig) -> None:
    """It may have found a change in the log before those who were listening are given it."""
    execution_id = await feed.create()
    viewer = Viewer(feed, execution_id, READY)
    viewer.begin = partial(feed.commit, execution_id)
    watching = asyncio.create_task(viewer.watch())
    while len(viewer.seen) < 2:
        await spin(1)
    await spin(20)
    await feed.commit(execution_id)
    await spin(20)
    assert viewer.seen == await feed.log(execution_id)
    assert viewer.given == 1
    watching.cancel()


async def test_a_reader_that_is_in_step_is_told_of_the_deletion(feed: Rig) -> None:
    """What it was given counts: the deletion comes next, as its last change."""
    execution_id = await feed.create()
    viewer = Viewer(feed, execution_id, READY)
    watching = asyncio.create_task(viewer.watch())
    await spin(20)
    await feed.commit(execution_id)
    await spin(20)
    await feed.delete(execution_id)
    with pytest.raises(NotFound, match="deleted"):
        await watching
    assert [change.revision for change in viewer.seen] == [1, 2, 3]
    assert (viewer.seen[-1].WhichOneof("kind"), viewer.given) == ("deleted", 1)


MANNERS = st.builds(
    Manner,
    room=st.lists(st.booleans(), max_size=6),
    pauses=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    from_snapshot=st.booleans(),
    delay=st.integers(0, 12),
    until=st.none() | st.integers(0, 12),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    writer=PAUSES,
    waits=st.lists(st.booleans(), min_size=25, max_size=25),
    manners=st.lists(MANNERS, min_size=1, max_size=5),
    deletion=st.sampled_from(["", "at once", "later"]),
)
def test_every_change_is_had_once_and_in_order_however_it_comes(
    writer: list[int], waits: list[bool], manners: list[Manner], deletion: str
) -> None:
    """Given or read, by readers that are quick, slow or leave, of an execution that ends or is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_mix(Path(folder) / "data", list(zip(writer, waits, strict=False)), manners, deletion))


async def _mix(folder: Path, steps: list[tuple[int, bool]], manners: list[Manner], deletion: str) -> None:
    async with asyncio.timeout(BOUND_SECONDS), rig(folder) as feed:
        execution_id = await feed.create()
        viewers = [Viewer(feed, execution_id, manner) for manner in manners]
        tasks = [asyncio.create_task(viewer.watch()) for viewer in viewers]
        await _write(feed, execution_id, steps, list(zip(viewers, tasks, strict=True)), deleted=bool(deletion))
        log = await feed.log(execution_id)
        if deletion == "later":
            await _until_all_is_had(
                [viewer for viewer, task in zip(viewers, tasks, strict=True) if not task.done()], log
            )
        if deletion:
            await feed.delete(execution_id)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await spin(20)
        assert feed.hub.listeners == 0
    for viewer, end in zip(viewers, ends, strict=True):
        _check(viewer, end, log, deletion)


async def _write(
    feed: Rig,
    execution_id: str,
    steps: list[tuple[int, bool]],
    watching: list[tuple[Viewer, asyncio.Task[None]]],
    *,
    deleted: bool,
) -> None:
    """Commit one change after each pause, waiting for it to be on disk or not; some leave meanwhile."""
    on_their_way = []
    for number, (pause, wait) in enumerate(steps, start=1):
        for viewer, task in watching:
            if viewer.manner.until == number:
                task.cancel()
        await spin(pause)
        end = number == len(steps) and not deleted
        commit = asyncio.ensure_future(feed.store.commit(feed.write(execution_id, end=end)))
        on_their_way.append(commit)
        await spin(1)
        if wait:
            await commit
    await asyncio.gather(*on_their_way)


async def _until_all_is_had(viewers: list[Viewer], log: list[ExecutionChange]) -> None:
    while any(not viewer.seen or viewer.seen[-1].revision < len(log) for viewer in viewers):
        await spin(1)
    await spin(20)  # what was had last has been looked at


def _check(viewer: Viewer, end: BaseException | None, log: list[ExecutionChange], deletion: str) -> None:
    """See that it has what is due to it, and that its stream ended as the execution did, unless it has left."""
    seen = viewer.seen
    kinds = [change.WhichOneof("kind") for change in seen]
    first = 1
    if viewer.manner.from_snapshot and seen:
        assert kinds.pop(0) == "snapshot"
        first = seen.pop(0).revision + 1
    deletions = [seen.pop()] if "deleted" in kinds else []
    assert seen == log[first - 1 : first - 1 + len(seen)]
    if isinstance(end, asyncio.CancelledError):
        assert viewer.manner.until is not None
        return
    assert isinstance(end, NotFound) if deletion else end is None
    if deletion != "at once":
        assert first - 1 + len(seen) == len(log)
    assert [change.revision for change in deletions] == [len(log) + 1] * (len(deletions) or deletion == "later")
