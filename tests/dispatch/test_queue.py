from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runstream.dispatch.backoff import LONGEST_SECONDS, backoff_seconds
from runstream.dispatch.occupancy import Occupancy
from runstream.dispatch.queue import Candidate, Queue


def anybody(_agent_id: str) -> bool:
    """Serve every agent."""
    return True


def never_busy(_candidate: Candidate) -> bool:
    """Let every session be free."""
    return False


def take_all(queue: Queue) -> list[str]:
    """Take everything that can be taken."""
    taken = []
    while (candidate := queue.take(anybody, never_busy)) is not None:
        taken.append(candidate.id)
    return taken


@given(st.lists(st.integers(0, 50), unique=True))
def test_the_executions_of_an_agent_are_taken_oldest_first(numbers: list[int]) -> None:
    queue = Queue()
    ids = [f"aex_{number:02}" for number in numbers]
    for execution_id in ids:
        queue.add(Candidate(execution_id, "agt", ""))
    assert len(queue) == len(ids)
    assert take_all(queue) == sorted(ids)
    assert len(queue) == 0


def test_agents_take_turns_however_much_one_of_them_has() -> None:
    queue = Queue()
    for number in range(4):
        queue.add(Candidate(f"a{number}", "many", ""))
    queue.add(Candidate("b0", "few", ""))
    queue.add(Candidate("c0", "fewer", ""))
    assert take_all(queue)[:3] == ["a0", "b0", "c0"]


def test_a_sub_execution_goes_before_whatever_has_no_parent() -> None:
    """Of whichever agent, however old the others are, and whose turn it would be."""
    queue = Queue()
    for number, agent_id in enumerate(("busy", "other", "busy", "other")):
        queue.add(Candidate(f"a{number}", agent_id, ""))
    for number in range(2):
        queue.add(Candidate(f"b{number}", "busy", "", parent_id="a"))
    queue.add(Candidate("c0", "third", "", parent_id="a"))
    taken = take_all(queue)
    assert taken[:3] == ["b0", "c0", "b1"]
    assert sorted(taken[3:]) == ["a0", "a1", "a2", "a3"]


def test_a_sub_execution_that_nobody_serves_holds_up_no_other() -> None:
    queue = Queue()
    queue.add(Candidate("child", "unserved", "", parent_id="a"))
    queue.add(Candidate("root", "served", ""))
    taken = queue.take(lambda agent_id: agent_id == "served", never_busy)
    assert taken is not None
    assert taken.id == "root"
    assert take_all(queue) == ["child"]


def test_a_session_that_is_free_again_goes_to_a_sub_execution_first() -> None:
    queue = Queue()
    for candidate in (Candidate("a", "agt", "ses"), Candidate("b", "agt", "ses", parent_id="elsewhere")):
        queue.add(candidate)
    assert queue.take(anybody, lambda _: True) is None
    queue.unpark("ses")
    assert take_all(queue) == ["b"]
    queue.unpark("ses")
    assert take_all(queue) == ["a"]


class Line:
    """Executions of some agents that are queued, taken and dropped, beside a plain account of them."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.waiting: dict[str, Candidate] = {}
        self._added = 0

    def add(self, number: int) -> None:
        """Queue another execution of one of three agents, or one that was made long ago."""
        age = self._added if number % 2 else 1000 - self._added
        parent_id = "above" if number % 5 < 2 else ""
        candidate = Candidate(f"aex_{age:04}", f"agt{number % 3}", "", parent_id)
        self._added += 1
        self.queue.add(candidate)
        self.waiting[candidate.id] = candidate

    def take(self, number: int) -> None:
        """Take the next one that a runner serves: no other could have been taken before it."""
        served = {f"agt{each}" for each in range(3) if number >> each & 1}
        taken = self.queue.take(served.__contains__, never_busy)
        able = [each for each in self.waiting.values() if each.agent_id in served]
        assert (taken is None) == (not able)
        if taken is not None:
            assert bool(taken.parent_id) == any(each.parent_id for each in able)
            alike = [each for each in able if (each.agent_id, each.parent_id) == (taken.agent_id, taken.parent_id)]
            assert taken == min(alike, key=lambda each: each.id)
            del self.waiting[taken.id]

    def discard(self, number: int) -> None:
        """Discard one that waits."""
        if self.waiting:
            gone = sorted(self.waiting)[number % len(self.waiting)]
            del self.waiting[gone]
            self.queue.discard(gone)

    def check(self) -> None:
        """See that the queue knows what waits, and that one made anew from it gives an agent's in the same order."""
        assert len(self.queue) == len(self.waiting)
        assert set(self.queue.agents) >= {each.agent_id for each in self.waiting.values()}
        for agent_id in self.queue.agents:
            anew = Queue()
            mine = [each for each in self.waiting.values() if each.agent_id == agent_id]
            for each in mine:
                anew.add(each)
            assert take_all(anew) == [each.id for each in sorted(mine, key=lambda each: (not each.parent_id, each.id))]


@given(st.lists(st.tuples(st.sampled_from(["add", "add", "take", "discard"]), st.integers(0, 99)), max_size=60))
def test_children_go_first_and_the_oldest_of_an_agent_next_whatever_came_before(steps: list[tuple[str, int]]) -> None:
    line = Line()
    for step, number in steps:
        getattr(line, step)(number)
    line.check()
    while line.waiting:
        line.take(7)
    assert take_all(line.queue) == []


def test_an_execution_is_queued_once_however_often_it_is_added() -> None:
    queue = Queue()
    queue.add(Candidate("a", "agt", ""))
    queue.add(Candidate("a", "agt", ""))
    assert take_all(queue) == ["a"]


def test_what_is_discarded_is_never_taken() -> None:
    queue = Queue()
    for name in "abc":
        queue.add(Candidate(name, "agt", ""))
    queue.discard("b")
    queue.discard("unknown")
    assert "b" not in queue
    assert take_all(queue) == ["a", "c"]


def test_an_agent_that_nobody_serves_does_not_hold_up_another() -> None:
    queue = Queue()
    queue.add(Candidate("a", "unserved", ""))
    queue.add(Candidate("b", "served", ""))
    taken = queue.take(lambda agent_id: agent_id == "served", never_busy)
    assert taken is not None
    assert taken.id == "b"
    assert queue.take(lambda agent_id: agent_id == "served", never_busy) is None
    assert "a" in queue


class Sessions:
    """Executions of sessions that are queued, taken and ended, beside a plain account of them."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.occupancy = Occupancy()
        self.waiting: set[str] = set()
        self.at_work: dict[str, Candidate] = {}
        self._added = 0

    def add(self, number: int) -> None:
        """Queue another execution of one of three sessions."""
        session_id = f"s{number % 3}"
        candidate = Candidate(f"{session_id}-{self._added:03}", "agt", session_id)
        self._added += 1
        self.queue.add(candidate)
        self.waiting.add(candidate.id)

    def take(self, _number: int = 0) -> None:
        """Take the next one; it must be the oldest of a session that was free, and there is one if it can be."""
        candidate = self.queue.take(anybody, lambda each: self.occupancy.is_busy(each.session_id))
        free = {each for each in self.waiting if not self.occupancy.is_busy(each[:2])}
        assert (candidate is None) == (not free)
        if candidate is not None:
            assert candidate.id == min(each for each in free if each[:2] == candidate.session_id)
            self.waiting.discard(candidate.id)
            self.at_work[candidate.id] = candidate
            self.occupancy.enter(candidate, takes_place=True)

    def end(self, number: int) -> None:
        """End one that is at work."""
        if self.at_work:
            ended = self.at_work.pop(sorted(self.at_work)[number % len(self.at_work)])
            freed = self.occupancy.leave(ended.id)
            assert freed == ended.session_id
            self.queue.unpark(freed)

    def discard(self, number: int) -> None:
        """Discard one that waits."""
        if self.waiting:
            gone = sorted(self.waiting)[number % len(self.waiting)]
            self.waiting.discard(gone)
            self.queue.discard(gone)


@given(st.lists(st.tuples(st.sampled_from(["add", "add", "take", "end", "discard"]), st.integers(0, 99)), max_size=80))
def test_a_session_has_one_execution_at_a_time_and_loses_none(steps: list[tuple[str, int]]) -> None:
    sessions = Sessions()
    for step, number in steps:
        getattr(sessions, step)(number)
    while sessions.at_work or sessions.waiting:
        sessions.take()
        sessions.end(0)
    assert len(sessions.queue) == 0
    assert len(sessions.occupancy) == 0


def test_what_waits_for_its_sub_executions_takes_no_place_of_its_agent() -> None:
    """Its session it keeps; of what is not at work nobody's word means anything."""
    occupancy = Occupancy()
    occupancy.enter(Candidate("a", "agt", "ses"), takes_place=True)
    assert [occupancy.set_aside("a", waits=waits) for waits in (True, True, False, False)] == [
        True,
        False,
        False,
        False,
    ]
    assert occupancy.taken("agt") == 1
    assert occupancy.set_aside("a", waits=True)
    assert occupancy.taken("agt") == 0
    assert occupancy.is_busy("ses")
    assert occupancy.leave("a") == "ses"
    assert not occupancy.set_aside("a", waits=True)
    assert not occupancy.set_aside("a", waits=False)
    assert (occupancy.taken("agt"), len(occupancy)) == (0, 0)


def test_places_of_an_agent_are_taken_by_what_runners_hold_alone() -> None:
    occupancy = Occupancy()
    execution = Candidate("a", "agt", "ses")
    occupancy.enter(execution, takes_place=True)
    assert occupancy.taken("agt") == 1
    occupancy.enter(execution, takes_place=False)
    assert occupancy.taken("agt") == 0
    assert occupancy.is_busy("ses")
    assert occupancy.leave("a") == "ses"
    assert occupancy.leave("a") == ""


@given(st.integers(0, 10_000), st.floats(0, 60), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_with_jitter_and_is_capped(lost: int, first: float, random: float) -> None:
    seconds = backoff_seconds(lost, first, lambda: random)
    assert 0 <= seconds <= LONGEST_SECONDS
    assert seconds >= min(first, LONGEST_SECONDS) / 2
    assert seconds <= backoff_seconds(lost + 1, first, lambda: 0.0)


def test_an_execution_does_not_wait_for_those_above_it_in_its_tree() -> None:
    occupancy = Occupancy()
    root = Candidate("root", "agt", "ses")
    middle = Candidate("middle", "agt", "elsewhere", parent_id="root")
    leaf = Candidate("leaf", "agt", "ses", parent_id="middle")
    stranger = Candidate("stranger", "agt", "ses")
    assert not occupancy.must_wait(root)
    occupancy.enter(root, takes_place=True)
    occupancy.enter(middle, takes_place=True)
    assert not occupancy.must_wait(leaf)
    assert occupancy.must_wait(stranger)
    occupancy.enter(leaf, takes_place=True)
    assert occupancy.must_wait(Candidate("sibling", "agt", "ses", parent_id="middle"))


def test_every_parked_execution_can_come_back_at_once() -> None:
    queue = Queue()
    for name in "abc":
        queue.add(Candidate(name, "agt", "ses"))
    assert queue.take(anybody, lambda _: True) is None
    queue.unpark("ses", every=True)
    assert take_all(queue) == ["a", "b", "c"]


def test_the_longest_wait_is_of_the_one_that_is_queued_longest() -> None:
    """Its time runs from when it was queued, parked or ready; one that is queued again begins anew."""
    now = [100.0]
    queue = Queue(lambda: now[0])
    assert queue.longest_wait == 0
    for name in "ba":
        queue.add(Candidate(name, "agt", "ses"))
        now[0] += 10
    assert queue.longest_wait == 20
    assert queue.take(anybody, lambda _: True) is None
    assert queue.longest_wait == 20
    queue.discard("b")
    assert queue.longest_wait == 10
    queue.add(Candidate("b", "agt", ""))
    assert queue.take(anybody, never_busy) == Candidate("a", "agt", "ses")
    assert queue.longest_wait == 0
    now[0] += 3
    assert queue.longest_wait == 3
    queue.discard("b")
    assert queue.longest_wait == 0
