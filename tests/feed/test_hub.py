"""The hub: a flag for each reader, raised by every commit, and nothing kept of those who have gone."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from runstream.feed.hub import ANY_EXECUTION, Hub, Wake
from runstream.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.feed.hub import Offer


async def test_a_wake_before_the_wait_is_not_missed() -> None:
    """A flag that went up while its reader was busy is up when the reader comes to wait."""
    hub = Hub()
    with hub.listen("one") as wake:
        wake.clear()
        hub.wake("one")
        async with asyncio.timeout(10):
            await wake.wait()


async def test_many_wakes_are_one_flag() -> None:
    """A reader that was busy during many commits is woken once."""
    hub = Hub()
    with hub.listen("one") as wake:
        for _ in range(1000):
            hub.wake("one")
        await wake.wait()
        wake.clear()
        assert await _would_wait(wake)


async def test_a_wake_reaches_all_readers_of_its_topic_and_no_others() -> None:
    """Readers of other executions, and of all executions, sleep on."""
    hub = Hub()
    with ExitStack() as stack:
        wakes = [stack.enter_context(hub.listen(topic)) for topic in ("one", "one", "two", ANY_EXECUTION)]
        hub.wake("one")
        assert [await _would_wait(wake) for wake in wakes] == [False, False, True, True]


async def test_a_waiting_reader_goes_on_when_it_is_woken() -> None:
    """The flag ends a wait that has begun."""
    hub = Hub()
    with hub.listen("one") as wake:
        waiting = asyncio.create_task(wake.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        hub.wake("one")
        async with asyncio.timeout(10):
            await waiting


def test_a_wake_that_nobody_waits_for_costs_nothing() -> None:
    """Nothing is kept for readers that may come."""
    hub = Hub()
    hub.wake("one")
    assert hub.listeners == 0


def test_a_reader_that_goes_is_forgotten() -> None:
    """The hub counts those who listen; one that leaves, even by an error, takes its topic with it."""
    hub = Hub()
    with hub.listen("one"), hub.listen("one"), hub.listen("two"):
        assert hub.listeners == 3
    assert hub.listeners == 0
    with pytest.raises(KeyError), hub.listen("one"):
        raise KeyError
    assert hub.listeners == 0


async def test_closing_ends_every_reader_also_one_that_waits() -> None:
    """All are woken, and told to come back later."""
    hub = Hub()
    with hub.listen("one") as wake:
        waiting = asyncio.create_task(wake.wait())
        await asyncio.sleep(0)
        hub.close()
        async with asyncio.timeout(10):
            await waiting
        with pytest.raises(Unavailable) as told:
            wake.clear()
        assert told.value.reason == "SHUTTING_DOWN"


async def test_a_reader_that_comes_after_closing_is_ended_too() -> None:
    """It does not wait for a wake that will not come."""
    hub = Hub()
    hub.close()
    with hub.listen("one") as wake:
        async with asyncio.timeout(10):
            await wake.wait()
        with pytest.raises(Unavailable):
            wake.clear()


async def test_a_commit_after_closing_does_not_open_the_hub_again() -> None:
    """Closed stays closed."""
    hub = Hub()
    with hub.listen("one") as wake:
        hub.close()
        hub.wake("one")
        with pytest.raises(Unavailable):
            wake.clear()


def test_a_reader_counts_how_far_it_was_behind_when_it_comes_back() -> None:
    """Each return counts the commits since the one before; a return without a commit counts nothing."""
    hub = Hub()
    with hub.listen("one") as wake:
        for commits in (0, 1, 7, 0, 300):
            for _ in range(commits):
                hub.wake("one")
            wake.clear()
        assert (sum(hub.lag.counts), hub.lag.sum) == (3, 308)
        assert hub.wakes == 308


def test_the_slowest_reader_is_known_while_it_is_away() -> None:
    """Of all readers of all topics, the one that has missed most tells how far behind readers are."""
    hub = Hub()
    assert hub.slowest == 0
    with hub.listen("one") as quick, hub.listen("one"), hub.listen("two"):
        for _ in range(5):
            hub.wake("one")
            quick.clear()
        hub.wake("two")
        assert hub.slowest == 5
    assert hub.slowest == 0


async def test_who_waits_in_step_is_given_what_comes_and_waits_on() -> None:
    """As long as each is the next and is taken; the flag stays down, and the wait tells which was the last."""
    hub, taken = Hub(), list[bytes]()
    with hub.listen("one") as wake:
        waiting = asyncio.create_task(wake.wait_in_step(4, _into(taken)))
        await asyncio.sleep(0)
        for revision in (5, 6):
            hub.wake("one", _change(revision))
        await asyncio.sleep(0)
        assert taken == [_change(5)[1], _change(6)[1]]
        assert not waiting.done()
        hub.wake("one")
        assert await waiting == 6
        assert (hub.wakes, sum(hub.lag.counts), hub.lag.sum, hub.slowest) == (3, 2, 2, 1)


@pytest.mark.parametrize(("revision", "room"), [(4, True), (6, True), (5, False)])
async def test_what_is_not_the_next_or_not_taken_puts_the_flag_up(revision: int, *, room: bool) -> None:
    """And what comes before the reader is back is not given to it: it finds that in the log."""
    hub, taken = Hub(), list[bytes]()
    with hub.listen("one") as wake:
        waiting = asyncio.create_task(wake.wait_in_step(4, _into(taken, [room])))
        await asyncio.sleep(0)
        hub.wake("one", _change(revision))
        hub.wake("one", _change(5))
        await asyncio.sleep(0)
        assert await waiting == 4
        assert taken == []


async def test_who_does_not_wait_is_given_nothing() -> None:
    """Neither a reader that is busy, nor one that has gone when its turn comes, nor one without an offer."""
    hub, taken = Hub(), list[bytes]()
    with hub.listen("one") as gone, hub.listen("one") as busy, hub.listen("one") as plain:
        waiting = asyncio.create_task(gone.wait_in_step(4, _into(taken)))
        plainly = asyncio.create_task(plain.wait_in_step(4, None))
        await asyncio.sleep(0)
        waiting.cancel()
        hub.wake("one", _change(5))
        assert await plainly == 4
        assert await busy.wait_in_step(4, _into(taken)) == 4
        assert taken == []


async def test_a_crowd_is_given_a_change_bit_by_bit() -> None:
    """Others have their turns between, and the next change comes to nobody before this one."""
    hub, crowd = Hub(), [list[bytes]() for _ in range(1_000)]
    with ExitStack() as stack:
        wakes = [stack.enter_context(hub.listen("one")) for _ in crowd]
        in_step = [wake.wait_in_step(4, _into(taken)) for wake, taken in zip(wakes, crowd, strict=True)]
        waiting = [asyncio.create_task(waits) for waits in in_step]
        await asyncio.sleep(0)
        hub.wake("one", _change(5))
        await asyncio.sleep(0)
        assert 0 < sum(map(bool, crowd)) < len(crowd)
        hub.wake("one", _change(6))
        for _ in range(len(crowd)):
            await asyncio.sleep(0)
        assert crowd == [[_change(5)[1], _change(6)[1]]] * len(crowd)
        hub.wake("one")
        assert await asyncio.gather(*waiting) == [6] * len(crowd)


async def test_closing_ends_those_who_wait_in_step() -> None:
    """They are given nothing more, and told to come back later."""
    hub, taken = Hub(), list[bytes]()
    with hub.listen("one") as wake:
        waiting = asyncio.create_task(wake.wait_in_step(4, _into(taken)))
        await asyncio.sleep(0)
        hub.wake("one", _change(5))
        hub.close()
        assert await waiting == 4
        assert taken == []
        with pytest.raises(Unavailable):
            wake.clear()


def _change(revision: int) -> tuple[int, bytes]:
    return revision, b"change %d" % revision


def _into(taken: list[bytes], room: Iterable[bool] = ()) -> Offer:
    """Make an offer that takes changes into a list while there is room; there always is after what is told."""
    rooms = iter(room)

    def offer(change: bytes) -> bool:
        if not next(rooms, True):
            return False
        taken.append(change)
        return True

    return offer


async def _would_wait(wake: Wake) -> bool:
    """Tell whether a wait would not return at once."""
    waiting = asyncio.create_task(wake.wait())
    await asyncio.sleep(0)
    waits = not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return waits
