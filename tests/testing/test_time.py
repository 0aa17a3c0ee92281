"""Time: what falls due does so when the test lets it, and in no time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.runner import Agent, Approval
from runstream.testing import Gate, Hang, ManualClock, Script, Tool, local_server

if TYPE_CHECKING:
    from runstream.testing import LocalServer


async def test_an_approval_is_decided_by_default(runstream_server: LocalServer, runstream_clock: ManualClock) -> None:
    ask = Tool("pay", approval=Approval(timeout=86_400, default="approve"), result="paid")
    handle = await runstream_server.start(Script(ask))
    await handle.until("waiting_for_approval")
    await runstream_server.advance(86_399)
    assert (await handle.state()).phase == "waiting_for_approval"
    await runstream_server.advance(1)
    state = await handle.result()
    assert (state.tool("pay").result, state.attempt) == ("paid", 1)
    assert state.tool("pay").approval.decided_by.id == "system"
    assert runstream_clock.monotonic() == 1_000 + 86_400


async def test_a_deadline_ends_the_execution(runstream_server: LocalServer, runstream_clock: ManualClock) -> None:
    assert runstream_clock.now().year == 2026
    handle = await runstream_server.start(Script("Working.", Hang()), max_duration=7_200)
    await handle.until_said("Working.")
    await runstream_server.advance(7_199)
    assert (await handle.state()).phase == "in_progress"
    await runstream_server.advance(1)
    state = await handle.result()
    assert (state.phase, state.reason, state.attempt) == ("failed", "DEADLINE_EXCEEDED", 1)


async def test_the_server_forces_what_does_not_comply() -> None:
    async with local_server(clock=ManualClock(), cancel_grace=30) as server:
        handle = await server.start(Script("Working.", Hang(stubborn=True)))
        await handle.until_said("Working.")
        await handle.cancel("enough")
        await server.advance(29)
        assert (await handle.state()).phase == "in_progress"
        await server.advance(1)
        state = await handle.result()
        assert (state.phase, state.reason) == ("cancelled", "CANCEL_UNACKNOWLEDGED")


async def test_living_runners_keep_what_they_hold_however_short_the_lease() -> None:
    async with local_server(clock=ManualClock(), lease_duration=3) as server:
        gate = Gate()
        handles = [await server.start(Script(f"Working on {n}.", gate)) for n in (1, 2)]
        for number, handle in enumerate(handles, start=1):
            await handle.until_said(f"on {number}")
        await server.advance(60)
        gate.open()
        assert [(await handle.result()).attempt for handle in handles] == [1, 1]


async def test_a_lease_that_ends_takes_the_execution_from_its_runner() -> None:
    clock = ManualClock()
    async with local_server(clock=clock, lease_duration=3) as server:
        handle = await server.start(Script("Working.", Hang()))
        await handle.until_said("Working.")
        clock.advance(3)
        assert (await handle.until("pending")).attempt == 1
        await server.advance(0)
        assert (await handle.until("in_progress")).attempt == 2


async def test_lost_runners_are_back_for_the_next_attempt(runstream_server: LocalServer) -> None:
    gate = Gate()
    waiting = await runstream_server.start(Script(Tool("pay", approval=True)))
    working = await runstream_server.start(Script("Working.", gate))
    done = await runstream_server.run(Script("Done."))
    await waiting.until("waiting_for_approval")
    await working.until_said("Working.")
    await runstream_server.lose_runners()
    await working.until_attempt(2)
    gate.open()
    assert (await working.result()).texts == ["Working."]
    assert (await waiting.state()).phase == "waiting_for_approval"
    await waiting.approve()
    assert (await waiting.result()).attempt == 2
    assert (await runstream_server.handle(done.id).state()).attempt == 1


async def test_losing_runners_takes_no_time(runstream_server: LocalServer, runstream_clock: ManualClock) -> None:
    before = runstream_clock.monotonic()
    handle = await runstream_server.start(Script("Working.", Hang()))
    await handle.until_said("Working.")
    await runstream_server.lose_runners()
    assert (await handle.until_attempt(2)).phase == "in_progress"
    assert runstream_clock.monotonic() == before


async def test_an_execution_that_loses_too_many_runners_fails(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Agent(Script("Working.", Hang()), max_attempts=2))
    for attempt in (1, 2):
        await handle.until_attempt(attempt)
        await runstream_server.lose_runners()
    state = await handle.result()
    assert (state.phase, state.reason, state.attempt) == ("failed", "RUNNER_LOST", 2)
