from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.job import Job, percentile, summed
from benchmarks.peers.machine import Machine, look
from benchmarks.peers.peer import Facts
from benchmarks.peers.program import Command, NotPossible, Program
from benchmarks.peers.programs.counting import Piece, Seen, gone
from benchmarks.peers.programs.measuring import FINISHED, Measuring
from benchmarks.peers.table import Measured, as_json, notes, table

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

_ANSWERING = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({"error": "no"} if asked["do"] == "refuse" else asked), flush=True)
"""


class Numbers:
    """A client of a stream that is remembered, and leaves out or repeats as many numbers at each return."""

    def __init__(self, *, skipped: int = 0, repeated: int = 0, restates: bool = False) -> None:
        self._step = skipped - repeated
        self._restates = restates
        self._events = 0

    async def connect(self) -> None:
        """Be ready."""

    async def create(self) -> str:
        """Name a run."""
        return "run"

    async def run(self) -> None:
        """End at once."""

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Emit so many."""
        assert not pause
        assert not joined
        self._events = events
        return await self.create()

    async def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Read on after the cursor, with the fault of this one."""
        assert run == "run"
        first = 0 if cursor is None else int(cursor) + 1 + self._step
        if self._restates and cursor is not None:
            first = int(cursor) + 1
            yield Piece(cursor, list(range(first)), restated=True)
        for number in range(first, self._events):
            yield Piece(str(number), [number])

    async def state(self, run: str) -> str:
        """It has ended."""
        assert run == "run"
        return FINISHED


def _facts(title: str) -> Facts:
    return Facts(
        title=title, what="a thing", versions="1", durable="yes", streamed="yes", resumes="a cursor", placed="core 0"
    )


async def test_a_reader_that_resumes_exactly_has_lost_nothing_and_seen_nothing_twice() -> None:
    answer = await Measuring(Numbers()).resume(50, [10, 20, 40], 60)
    assert answer == {
        "seen": 50,
        "drops": 3,
        "in_time": True,
        "emitted": 50,
        "lost": 0,
        "duplicated": 0,
        "disordered": 0,
    }


async def test_what_a_resumed_stream_leaves_out_is_counted_as_lost() -> None:
    answer = await Measuring(Numbers(skipped=2)).resume(50, [10, 20, 40], 60)
    assert (answer["lost"], answer["duplicated"]) == (6, 0)


async def test_what_a_resumed_stream_repeats_is_counted_as_duplicated() -> None:
    answer = await Measuring(Numbers(repeated=1)).resume(50, [10, 20, 40], 60)
    assert (answer["lost"], answer["duplicated"]) == (0, 3)


async def test_a_state_that_is_told_anew_takes_the_place_of_what_was_seen() -> None:
    answer = await Measuring(Numbers(restates=True)).resume(50, [10, 20, 40], 60)
    assert (answer["lost"], answer["duplicated"], answer["seen"]) == (0, 0, 50)


async def test_as_many_runs_are_timed_as_were_asked_for() -> None:
    answer = await Measuring(Numbers()).run(30, 8, 60)
    assert len(answer["seconds"]) == 30


def test_events_out_of_order_are_counted() -> None:
    seen = Seen()
    seen.take(Piece("", [0, 2, 1, 3]))
    assert seen.compared(5) == {"emitted": 5, "lost": 1, "duplicated": 0, "disordered": 1}


def test_what_was_seen_before_and_is_not_there_after_is_gone() -> None:
    assert gone([0, 1, 2, 2, 3], [0, 3, 4]) == 2


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile([*range(100, 0, -1)], percent) == value


def test_many_times_are_kept_as_their_statistics() -> None:
    assert summed({"seconds": [0.1, 0.3, 0.2], "elapsed": 0.6}) == {
        "elapsed": 0.6,
        "count": 3,
        "p50": 0.2,
        "p99": 0.3,
        "per_second": pytest.approx(5),
    }


def test_what_did_not_end_in_time_is_not_told_as_lost() -> None:
    resume = {"seen": 7, "in_time": False, "emitted": 10, "lost": 3, "duplicated": 0}
    printed = table([Measured(_facts("Slow"), Machine(0.1, 0.001), {"start": {}, "resume": resume})])
    assert "? / 0 (7 in time)" in printed


def test_a_peer_that_cannot_be_started_is_told_with_its_reason_and_the_others_are_in_the_table() -> None:
    machine = Machine(0.1, 0.001)
    measured = [
        Measured(_facts("Here"), machine, {"start": {}, "create": {"p50": 0.0012, "p99": 0.0345}}),
        Measured(_facts("Missing"), machine, {"start": {"reason": "there is no npm"}}),
    ]
    printed = table(measured)
    assert "1.2 / 34.5" in printed
    assert "Missing" not in printed
    assert "no figure for start: there is no npm" in notes(measured)


def test_every_line_of_the_table_is_as_wide_as_its_columns() -> None:
    killed = {"state": "finished", "seconds": 1.25, "lost": 0, "duplicated": 2, "gone": 0, "seen_before": 500}
    measured = [
        Measured(_facts(title), Machine(0.1, 0.001), {"start": {}, "kill server": killed})
        for title in ("A", "Long name")
    ]
    lines = table(measured).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("finished, 1.2 s")


def test_the_json_holds_the_job_the_conditions_and_every_figure() -> None:
    measured = [Measured(_facts("Here"), Machine(0.5, 0.001), {"start": {}, "create": {"p50": 0.001, "p99": 0.002}})]
    told = json.loads(as_json(measured, Job(), "a machine"))
    assert told["conditions"] == "a machine"
    assert told["job"]["places"] == Job().places()
    assert told["peers"][0]["figures"]["create"]["p99"] == 0.002
    assert told["peers"][0]["machine"] == {"load": 0.5, "sync": 0.001}


def test_a_reader_drops_its_connection_at_the_same_random_places_for_every_peer() -> None:
    places = Job().places()
    assert places == Job().places() == sorted(set(places))
    assert len(places) == Job().drops


def test_a_look_at_the_machine_tells_its_load_and_what_a_synced_write_takes(tmp_path: Path) -> None:
    machine = look(tmp_path)
    assert machine.load >= 0
    assert machine.sync > 0


async def test_a_program_answers_a_line_with_a_line_refuses_with_its_reason_and_ends_when_stopped(
    tmp_path: Path,
) -> None:
    line = [sys.executable, "-c", _ANSWERING]
    command = Command(name="echo", line=line, cores=os.sched_getaffinity(0), environment={"PEER_TALKS": "1"})
    program = await Program.start(command, tmp_path)
    try:
        assert await program.ask("say", 30, word="yes") == {"do": "say", "word": "yes"}
        with pytest.raises(NotPossible, match="refuse: no"):
            await program.ask("refuse", 30)
    finally:
        await program.stop()
    assert not program.running
