"""Deadlines: names fall due in the order of their times, once each, beside each other, whatever happens to any."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from runstream.dispatch.deadlines import AT_ONCE, RETRY_SECONDS, Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.clock import FakeClock


class Due:
    """Takes down what falls due, and can be made to fail."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failures: dict[str, int] = {}
        self.heard = asyncio.Event()

    async def __call__(self, name: str) -> None:
        """Hear that a name is due."""
        self.names.append(name)
        self.heard.set()
        if self.failures.get(name):
            self.failures[name] -= 1
            raise ZeroDivisionError(name)


class Slow:
    """Holds every call until the test lets it go, and takes down what runs beside what."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running: set[str] = set()
        self.most = 0
        self.cancelled: list[str] = []
        self._changed = asyncio.Condition()
        self._let_go: set[str] = set()
        self.failing: set[str] = set()

    async def __call__(self, name: str) -> None:
        """Hear that a name is due; go on when it is let go."""
        assert name not in self.running, "called for twice at once"
        self.running.add(name)
        self.begun.append(name)
        self.most = max(self.most, len(self.running))
        try:
            async with self._changed:
                self._changed.notify_all()
                await self._changed.wait_for(lambda: name in self._let_go)
                self._let_go.discard(name)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.running.discard(name)
        if name in self.failing:
            raise ZeroDivisionError(name)

    async def let_go(self, *names: str) -> None:
        """Let calls that run come to their ends."""
        async with self._changed:
            self._let_go.update(names)
            self._changed.notify_all()

    async def has_begun(self, count: int) -> None:
        """Return when this many calls have begun, in all."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.begun) >= count)


@asynccontextmanager
async def run(deadlines: Deadlines) -> AsyncIterator[None]:
    """Let time take its course for the length of the block."""
    task = asyncio.create_task(deadlines.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_names_fall_due_in_the_order_of_their_times(clock: FakeClock) -> None:
    """Whatever the order they were added in, the soonest comes first, and none before its time."""
    due = Due()
    deadlines = Deadlines(clock, due)
    for name, seconds in (("late", 3), ("soon", 1), ("between", 2)):
        deadlines.add(name, seconds)
    await deadlines.run_due()
    assert due.names == []
    clock.advance(2)
    await deadlines.run_due()
    assert due.names == ["soon", "between"]
    assert len(deadlines) == 1
    clock.advance(1)
    await deadlines.run_due()
    assert due.names == ["soon", "between", "late"]
    assert len(deadlines) == 0


async def test_a_name_falls_due_once(clock: FakeClock) -> None:
    """What was called for is forgotten."""
    due = Due()
    deadlines = Deadlines(clock, due)
    deadlines.add("a", 1)
    for _ in range(3):
        clock.advance(5)
        await deadlines.run_due()
    assert due.names == ["a"]


async def test_a_name_that_is_added_again_is_moved(clock: FakeClock) -> None:
    """The last time that was given counts, later or sooner."""
    due = Due()
    deadlines = Deadlines(clock, due)
    deadlines.add("later", 1)
    deadlines.add("later", 10)
    deadlines.add("sooner", 10)
    deadlines.add("sooner", 1)
    assert len(deadlines) == 2
    clock.advance(1)
    await deadlines.run_due()
    assert due.names == ["sooner"]
    clock.advance(9)
    await deadlines.run_due()
    assert due.names == ["sooner", "later"]


async def test_a_removed_name_does_not_fall_due(clock: FakeClock) -> None:
    """Removing forgets; removing what is not there is no error; what is added after that counts."""
    due = Due()
    deadlines = Deadlines(clock, due)
    deadlines.add("a", 1)
    deadlines.add("b", 1)
    deadlines.remove("a")
    deadlines.remove("nobody")
    clock.advance(1)
    await deadlines.run_due()
    assert due.names == ["b"]
    deadlines.add("a", 1)
    clock.advance(1)
    await deadlines.run_due()
    assert due.names == ["b", "a"]


async def test_a_failed_call_is_tried_again_and_holds_nobody_up(clock: FakeClock) -> None:
    """After a failure the others get their turn at once and the failed one another a second later, until it works."""
    due = Due()
    due.failures["bad"] = 2
    deadlines = Deadlines(clock, due)
    deadlines.add("bad", 1)
    deadlines.add("good", 1)
    clock.advance(1)
    with capture_logs() as logs:
        await deadlines.run_due()
        assert sorted(due.names) == ["bad", "good"]
        await deadlines.run_due()
        assert len(due.names) == 2
        for _ in range(3):
            clock.advance(RETRY_SECONDS)
            await deadlines.run_due()
    assert due.names.count("bad") == 3
    assert [(log["event"], log["name"], log["execution_id"]) for log in logs] == [("deadline_failed", "bad", "bad")] * 2
    assert len(deadlines) == 0


async def test_a_name_may_be_added_while_one_is_due(clock: FakeClock) -> None:
    """The call for a name may set the next time of the same name."""
    names = []

    async def again(name: str) -> None:
        names.append(name)
        if len(names) < 3:
            deadlines.add(name, 1)

    deadlines = Deadlines(clock, again)
    deadlines.add("a", 0)
    for _ in range(5):
        await deadlines.run_due()
        clock.advance(1)
    assert names == ["a"] * 3


async def test_the_loop_sleeps_until_the_next_time_or_a_sooner_one(clock: FakeClock) -> None:
    """The loop is woken by the next time, and by a name that is added with a sooner one; it polls nothing."""
    due = Due()
    deadlines = Deadlines(clock, due)
    async with run(deadlines):
        deadlines.add("late", 100)
        await clock.awaited(100)
        deadlines.add("soon", 10)
        await clock.awaited(10)
        clock.advance(10)
        await due.heard.wait()
        assert due.names == ["soon"]
        due.heard.clear()
        await clock.awaited(90)
        clock.advance(90)
        await due.heard.wait()
    assert due.names == ["soon", "late"]


async def test_the_loop_calls_at_once_for_what_is_overdue(clock: FakeClock) -> None:
    """A name whose time is over when it is added is due now."""
    due = Due()
    deadlines = Deadlines(clock, due)
    async with run(deadlines):
        deadlines.add("now", 0)
        await due.heard.wait()
        due.heard.clear()
        deadlines.add("past", -5)
        await due.heard.wait()
    assert due.names == ["now", "past"]


async def test_a_jump_of_the_wall_clock_moves_nothing(clock: FakeClock) -> None:
    """Times are monotonic: neither a day forward nor a day back changes when a name falls due."""
    due = Due()
    deadlines = Deadlines(clock, due)
    deadlines.add("a", 10)
    now = clock.now()
    for day in (2, 30):
        clock.set_now(now.replace(day=day))
        await deadlines.run_due()
    assert due.names == []
    clock.advance(10)
    await deadlines.run_due()
    assert due.names == ["a"]


async def test_any_sequence_of_changes_is_as_a_plain_list_would_have_it(clock: FakeClock) -> None:
    """Random adding, moving, removing and passing of time calls for exactly what a dictionary says is due."""
    chance = random.Random(7)
    due, times = Due(), dict[str, float]()
    deadlines = Deadlines(clock, due)
    for _ in range(2_000):
        name = chance.choice("abcdefgh")
        match chance.randrange(3):
            case 0:
                seconds = chance.randint(0, 9)
                deadlines.add(name, seconds)
                times[name] = clock.monotonic() + seconds
            case 1:
                deadlines.remove(name)
                times.pop(name, None)
            case _:
                clock.advance(chance.randint(0, 3))
                due.names.clear()
                await deadlines.run_due()
                expected = {name: at for name, at in times.items() if at <= clock.monotonic()}
                assert sorted(due.names) == sorted(expected)
                assert [times[name] for name in due.names] == sorted(expected.values())
                times = {name: at for name, at in times.items() if name not in expected}
        assert len(deadlines) == len(times)


async def test_a_slow_call_holds_nobody_up(clock: FakeClock) -> None:
    """While one call takes its time, others that fall due are made, those that are due later as well."""
    slow = Slow()
    deadlines = Deadlines(clock, slow)
    async with run(deadlines):
        deadlines.add("slow", 1)
        deadlines.add("beside", 1)
        await clock.awaited(1)
        clock.advance(1)
        await slow.has_begun(2)
        await slow.let_go("beside")
        deadlines.add("later", 5)
        await clock.awaited(5)
        clock.advance(5)
        await slow.has_begun(3)
        assert slow.begun == ["beside", "slow", "later"]
        assert "slow" in slow.running
        await slow.let_go("slow", "later")


async def test_a_name_is_never_called_for_twice_at_once(clock: FakeClock) -> None:
    """One that falls due again while its call runs has its turn when that is over, and once."""
    slow = Slow()
    deadlines = Deadlines(clock, slow)
    async with run(deadlines):
        deadlines.add("a", 0)
        await slow.has_begun(1)
        deadlines.add("a", 0)
        deadlines.add("a", 0)
        deadlines.add("b", 0)
        await slow.has_begun(2)
        assert slow.begun == ["a", "b"]
        await slow.let_go("a")
        await slow.has_begun(3)
        deadlines.add("a", 9)
        await slow.let_go("a", "b")
        await clock.awaited(9)
        assert slow.begun == ["a", "b", "a"]
        clock.advance(9)
        await slow.has_begun(4)
        await slow.let_go("a")
    assert slow.begun == ["a", "b", "a", "a"]


async def test_so_many_run_at_once_and_no_more(clock: FakeClock) -> None:
    """A burst is called for in pieces, the soonest first; each end makes a place for the next."""
    slow = Slow()
    deadlines = Deadlines(clock, slow)
    names = [f"n{number}" for number in range(3 * AT_ONCE)]
    for number, name in reversed(list(enumerate(names))):
        deadlines.add(name, -1000 + number)
    async with run(deadlines):
        await slow.has_begun(AT_ONCE)
        assert slow.begun == names[:AT_ONCE]
        await slow.let_go(names[5])
        await slow.has_begun(AT_ONCE + 1)
        assert slow.begun == names[: AT_ONCE + 1]
        await slow.let_go(*names)
        await slow.has_begun(len(names))
    assert slow.begun == names
    assert slow.most == AT_ONCE


async def test_a_failed_call_is_tried_again_while_others_run(clock: FakeClock) -> None:
    """A failure beside a slow call is tried again after its rest, unless the name was removed or moved meanwhile."""
    slow = Slow()
    slow.failing = {"bad", "moved", "removed"}
    deadlines = Deadlines(clock, slow)
    with capture_logs() as logs:
        async with run(deadlines):
            for name in ("slow", "bad", "moved", "removed"):
                deadlines.add(name, 0)
            await slow.has_begun(4)
            deadlines.add("moved", 50)
            deadlines.remove("removed")
            await slow.let_go("bad", "moved", "removed")
            await clock.awaited(RETRY_SECONDS)
            clock.advance(RETRY_SECONDS)
            await slow.has_begun(5)
            assert slow.begun[4:] == ["bad"]
            assert len(deadlines) == 1
            assert deadlines.remaining("moved") == 50 - RETRY_SECONDS
    assert [log["name"] for log in logs] == ["bad", "moved", "removed"]


async def test_the_end_of_the_loop_ends_the_calls(clock: FakeClock) -> None:
    """Whoever cancels the loop ends every call under way, and waits for it, one that has not begun as well."""
    slow = Slow()
    deadlines = Deadlines(clock, slow)
    async with run(deadlines):
        deadlines.add("a", 0)
        deadlines.add("b", 0)
        await slow.has_begun(2)
    assert sorted(slow.cancelled) == ["a", "b"]
    assert slow.running == set()
    async with run(deadlines):  # nothing of it is in the way of another run
        deadlines.add("a", 0)
        await slow.has_begun(3)


def test_how_long_a_name_has_left_is_told(clock: FakeClock) -> None:
    """The seconds that are left grow less as time passes, not below 0; whoever is not there has none."""
    deadlines = Deadlines(clock, Due())
    deadlines.add("a", 10)
    assert deadlines.remaining("a") == 10
    clock.advance(4)
    clock.set_now(clock.now().replace(year=2001))
    assert deadlines.remaining("a") == 6
    clock.advance(40)
    assert deadlines.remaining("a") == 0
    deadlines.remove("a")
    assert deadlines.remaining("a") is None
    assert deadlines.remaining("nobody") is None
