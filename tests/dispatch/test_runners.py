from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from runstream.dispatch.runners import Runner, Runners, RunnerStream
from tests.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY = 4
RUNNER_IDS = ("ann", "bob")
EXECUTION_IDS = ("x", "y", "z")


def attach(runners: Runners, runner_id: str) -> Runner:
    """Attach a runner."""
    runner = runners.renew(runner_id)
    runner.stream = RunnerStream(CAPACITY, frozenset())
    return runner


def test_either_reason_to_wait_gives_the_place_away_and_both_give_it_once() -> None:
    runners = Runners(FakeClock(), 15)
    runner = attach(runners, "ann")
    places = []
    for for_person, for_children in ((False, False), (False, True), (True, True), (True, False), (False, False)):
        runners.note("x", "ann", 1, for_person=for_person, told=True)
        runners.note_named("x", "ann", 1, for_children=for_children)
        places.append(runner.places)
    assert places == [CAPACITY - 1, CAPACITY, CAPACITY, CAPACITY, CAPACITY - 1]


def test_a_report_says_nothing_about_sub_executions() -> None:
    runners = Runners(FakeClock(), 15)
    runner = attach(runners, "ann")
    runners.note("x", "ann", 1, for_person=False, told=True)
    assert runners.note_named("x", "ann", 1, for_children=True)
    assert not runners.note_named("x", "ann", 1)
    assert not runners.note_named("x", "ann", 1, for_children=True)
    assert runner.places == CAPACITY


def test_a_new_attempt_does_not_wait_because_the_one_before_did() -> None:
    runners = Runners(FakeClock(), 15)
    runner = attach(runners, "ann")
    runners.note("x", "ann", 1, for_person=False, told=True)
    runners.note_named("x", "ann", 1, for_children=True)
    runners.note("x", "ann", 2, for_person=False, told=True)
    assert runner.places == CAPACITY - 1


class Account:
    """Runners that take, name and lose executions, beside a plain account of who waits for what."""

    def __init__(self) -> None:
        self.runners = Runners(FakeClock(), 15)
        self.attached = {runner_id: attach(self.runners, runner_id) for runner_id in RUNNER_IDS}
        #: Of every execution that is held: by whom, as which attempt, and whether a person and sub-executions.
        self.held: dict[str, tuple[str, int, bool, bool]] = {}

    def note(self, execution_id: str, runner_id: str, attempt: int, flag: bool) -> None:  # noqa: FBT001
        """Learn from disk who holds an execution."""
        self.runners.note(execution_id, runner_id, attempt, for_person=flag, told=flag)
        before = self.held.get(execution_id)
        kept = before is not None and before[:2] == (runner_id, attempt) and before[3]
        self.held[execution_id] = (runner_id, attempt, flag, kept)

    def lose(self, execution_id: str, _runner_id: str, attempt: int, flag: bool) -> None:  # noqa: FBT001
        """Learn from disk that nobody holds it."""
        self.runners.note(execution_id, "", attempt, for_person=flag, told=flag)
        self.held.pop(execution_id, None)

    def name(self, execution_id: str, runner_id: str, attempt: int, flag: bool) -> None:  # noqa: FBT001
        """Hear a runner name an execution, which it may not hold."""
        waits_now = self.runners.note_named(execution_id, runner_id, attempt, for_children=flag)
        before = self.held.get(execution_id)
        if before is None or before[:2] != (runner_id, attempt):
            assert not waits_now
            return
        assert waits_now == (flag and not before[2] and not before[3])
        self.held[execution_id] = (*before[:3], flag)

    def check(self) -> None:
        """See that every runner has as many places as the account leaves it."""
        for runner_id, runner in self.attached.items():
            taking = [each for each in self.held.values() if each[0] == runner_id and not (each[2] or each[3])]
            assert runner.places == CAPACITY - len(taking)
            assert runner.waiting == sum(holding.waits for holding in runner.held.values())


STEPS: list[Callable[[Account, str, str, int, bool], None]] = [Account.note, Account.lose, Account.name, Account.name]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(STEPS),
            st.sampled_from(EXECUTION_IDS),
            st.sampled_from(RUNNER_IDS),
            st.integers(1, 2),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_what_waits_never_drifts(
    steps: list[tuple[Callable[[Account, str, str, int, bool], None], str, str, int, bool]],
) -> None:
    """Whoever takes, loses and names what, as whichever attempt: the places are those of what does not wait."""
    account = Account()
    for step, execution_id, runner_id, attempt, flag in steps:
        step(account, execution_id, runner_id, attempt, flag)
        account.check()
