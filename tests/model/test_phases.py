from __future__ import annotations

from itertools import product

import pytest

from runstream.model.errors import FailedPrecondition
from runstream.model.phases import TERMINAL, check_recovery, check_transition, is_terminal, phase_name
from runstream.v1.agent_execution_pb2 import ExecutionPhase

#: The table of the design, in words, apart from the code's.
ENDS = "COMPLETED FAILED CANCELLED TERMINATED"
ANYONE = {
    "PENDING": f"IN_PROGRESS PAUSED {ENDS}",
    "IN_PROGRESS": f"WAITING_FOR_APPROVAL WAITING_FOR_INPUT PAUSED {ENDS}",
    "WAITING_FOR_APPROVAL": f"IN_PROGRESS PAUSED {ENDS}",
    "WAITING_FOR_INPUT": f"IN_PROGRESS PAUSED {ENDS}",
    "PAUSED": "IN_PROGRESS CANCELLED FAILED TERMINATED",
}
SERVER = {"IN_PROGRESS": "PENDING", "WAITING_FOR_APPROVAL": "PENDING", "WAITING_FOR_INPUT": "PENDING"} | {
    "PAUSED": "PENDING"
}

NAMES = [name.removeprefix("EXECUTION_") for name in ExecutionPhase.keys() if "UNSPECIFIED" not in name]  # noqa: SIM118  # not a dict
EVERY_PAIR = list(product(NAMES, NAMES, [False, True]))


def number(name: str) -> int:
    """Return the number of a phase."""
    return ExecutionPhase.Value(f"EXECUTION_{name}")


def test_the_terminal_phases_are_the_four_of_the_design() -> None:
    """COMPLETED, FAILED, CANCELLED and TERMINATED are terminal, no other number is."""
    assert sorted(TERMINAL) == [3, 4, 5, 8]
    assert [phase for phase in range(-1, 50) if is_terminal(phase)] == [3, 4, 5, 8]


@pytest.mark.parametrize(("current", "new", "by_server"), EVERY_PAIR)
def test_exactly_the_transitions_of_the_table_are_allowed(current: str, new: str, by_server: bool) -> None:  # noqa: FBT001
    """Every pair of phases is allowed or refused as the design says, with the reason that fits."""
    if current in ENDS.split():
        expected = "EXECUTION_TERMINAL"
    elif new == current or new in ANYONE[current].split() or (by_server and new in SERVER.get(current, "").split()):
        expected = ""
    else:
        expected = "INVALID_TRANSITION"
    if not expected:
        check_transition(number(current), number(new), by_server=by_server)
        return
    with pytest.raises(FailedPrecondition, match=f"EXECUTION_{current}") as caught:
        check_transition(number(current), number(new), by_server=by_server)
    assert caught.value.reason == expected
    assert caught.value.metadata == {"phase": f"EXECUTION_{current}", "requested_phase": f"EXECUTION_{new}"}
    if new != current:
        assert f"EXECUTION_{new}" in caught.value.message


def test_a_refusal_names_what_would_be_allowed() -> None:
    """Whoever is refused need not look the table up."""
    with pytest.raises(FailedPrecondition) as caught:
        check_transition(number("PAUSED"), number("COMPLETED"))
    allowed = caught.value.message.partition("Allowed from here: ")[2]
    assert allowed == ", ".join(f"EXECUTION_{name}" for name in ("IN_PROGRESS", "FAILED", "CANCELLED", "TERMINATED."))


@pytest.mark.parametrize("name", NAMES)
def test_an_unspecified_phase_stays_unless_the_execution_has_ended(name: str) -> None:
    """A delta without a phase is taken, but after the end nothing is."""
    if name in ENDS.split():
        with pytest.raises(FailedPrecondition, match="takes no more status"):
            check_transition(number(name), 0)
    else:
        check_transition(number(name), 0)


@pytest.mark.parametrize("unknown", [-1, 10, 2**31 - 1])
def test_a_number_that_is_no_phase_is_refused_by_its_number(unknown: int) -> None:
    """A hostile number neither passes nor breaks anything."""
    with pytest.raises(FailedPrecondition, match=str(unknown)):
        check_transition(number("PENDING"), unknown)
    with pytest.raises(FailedPrecondition, match="nothing"):
        check_transition(unknown, number("PENDING"))


@pytest.mark.parametrize("name", NAMES)
def test_only_a_failed_execution_can_be_recovered(name: str) -> None:
    """Recover is the one exception to the end, and for FAILED alone."""
    if name == "FAILED":
        check_recovery(number(name))
        return
    with pytest.raises(FailedPrecondition) as caught:
        check_recovery(number(name))
    assert caught.value.reason == ("EXECUTION_TERMINAL" if name in ENDS.split() else "INVALID_TRANSITION")


def test_a_phase_is_named_as_in_the_proto() -> None:
    """Names are those that clients see, and a number without one is itself."""
    assert (phase_name(2), phase_name(0), phase_name(77)) == (
        "EXECUTION_IN_PROGRESS",
        "EXECUTION_PHASE_UNSPECIFIED",
        "77",
    )
