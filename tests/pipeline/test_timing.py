"""Step times: sums by command and step."""

from __future__ import annotations

from structlog.testing import capture_logs

from runstream.pipeline.timing import StepTime, StepTimes


def test_measurements_are_added_up_by_command_and_step() -> None:
    """Runs are counted and seconds added for each step of each command apart."""
    times = StepTimes()
    for pipeline, step, seconds in (("A", "x", 1.0), ("A", "x", 0.5), ("A", "y", 2.0), ("B", "x", 4.0)):
        times(pipeline, step)(seconds)
    assert times.totals() == {
        ("A", "x"): StepTime(2, 1.5),
        ("A", "y"): StepTime(1, 2.0),
        ("B", "x"): StepTime(1, 4.0),
    }


def test_a_total_does_not_lose_what_comes_later() -> None:
    """The totals can be asked for again and again while commands run."""
    times = StepTimes()
    assert times.totals() == {}
    note = times("A", "x")
    assert times.totals() == {}
    note(1.0)
    assert times.totals()["A", "x"].runs == 1
    note(1.0)
    assert times.totals()["A", "x"].runs == 2


def test_a_measurement_is_no_noise_in_a_quiet_log() -> None:
    """Steps are logged for debugging only."""
    with capture_logs() as logs:
        StepTimes()("A", "x")(1.0)
    assert logs == []
