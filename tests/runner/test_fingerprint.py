"""Fingerprints: every change that another invocation could see is found, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import functools
import logging
import queue
import threading
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.runner.fingerprint import DEEPEST, MOST_OBJECTS, Fingerprint
from runstream.v1.agent_pb2 import AgentSpec

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Memory:
    """Something that an agent holds."""

    items: list[object] = field(default_factory=list)


class Slotted:
    """Something with slots."""

    __slots__ = ("kept", "never")

    def __init__(self) -> None:
        self.kept: object = 1


class Tuned:
    """An agent with one of everything."""

    of_class: list[object] = []  # noqa: RUF012  # what is tested

    def __init__(self) -> None:
        self.last: object = None
        self.state: dict[object, object] = {"a": 1, ("b", 2): [1]}
        self.names = {"x"}
        self.memory = Memory()
        self.slotted = Slotted()
        self.recent: deque[object] = deque(maxlen=3)
        self.queued: asyncio.Queue[object] = asyncio.Queue()
        self.waiting: queue.Queue[object] = queue.Queue()
        self.spec = AgentSpec(instructions="be short")
        self.loose = SimpleNamespace(deep=[{"x": bytearray(b"1")}])
        self.itself = self
        self.lock = threading.Lock()
        self.opaque = object()
        self.by_hand = functools.partial(print, self.memory, end=[1])
        self.method = self.learn

    def learn(self) -> None:
        """Do nothing."""

    @functools.cached_property
    def compiled(self) -> list[int]:
        """What is computed once, of nothing but the agent."""
        return [1]

    async def __call__(self) -> None:
        """Be an agent."""


def changed(value: object, change: Callable[[], object], *ignore: str) -> list[str]:
    """Return the paths of what a change has changed."""
    ignored = frozenset(ignore)
    before = Fingerprint(value, ignored)
    assert before.changes(Fingerprint(value, ignored)) == []
    change()
    return before.changes(Fingerprint(value, ignored))


CHANGES: dict[str, tuple[Callable[[Tuned], object], str]] = {
    "attribute": (lambda agent: setattr(agent, "last", "ada"), "last"),
    "new attribute": (lambda agent: setattr(agent, "fresh", "ada"), "fresh"),
    "attribute gone": (lambda agent: delattr(agent, "last"), "last"),
    "new key": (lambda agent: agent.state.update(ada=1), "state"),
    "another value": (lambda agent: agent.state.update(a="ada"), "state[…]"),
    "a key in place of another": (lambda agent: agent.state.update(ada=agent.state.pop("a")), "state[…]"),
    "in a list in a dict": (lambda agent: agent.state[("b", 2)].append(1), "state[…]"),  # type: ignore[attr-defined]
    "set": (lambda agent: agent.names.add("ada"), "names"),
    "set of as many": (lambda agent: agent.names.symmetric_difference_update({"x", "ada"}), "names"),
    "dataclass": (lambda agent: agent.memory.items.append("ada"), "memory.items"),
    "slot": (lambda agent: setattr(agent.slotted, "kept", "ada"), "slotted.kept"),
    "slot that was empty": (lambda agent: setattr(agent.slotted, "never", "ada"), "slotted.never"),
    "deque": (lambda agent: agent.recent.append("ada"), "recent"),
    "asyncio queue": (lambda agent: agent.queued.put_nowait("ada"), "queued[…]"),
    "queue": (lambda agent: agent.waiting.put("ada"), "waiting[…]"),
    "message": (lambda agent: setattr(agent.spec, "instructions", "ada"), "spec"),
    "deep down": (lambda agent: agent.loose.deep[0]["x"].append(1), "loose.deep[…][…]"),
    "class": (lambda agent: agent.of_class.append("ada"), "of_class"),
    "in front of the class": (lambda agent: setattr(agent, "of_class", "ada"), "of_class"),
    "opaque": (lambda agent: setattr(agent, "opaque", object()), "opaque"),
    "bound argument": (lambda agent: agent.by_hand.keywords["end"].append("ada"), "by_hand.end"),
    "type": (lambda agent: agent.state.update(a=True), "state[…]"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_an_agent_changes_of_itself_is_found_and_named_without_its_value(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tuned, "of_class", [])
    change, path = CHANGES[name]
    agent = Tuned()
    assert changed(agent, lambda: change(agent)) == [path]


def test_what_comes_of_nothing_but_the_agent_is_no_change() -> None:
    agent = Tuned()

    def use() -> None:
        assert agent.compiled == [1]
        with agent.lock:
            logging.getLogger("tuned").isEnabledFor(logging.DEBUG)
        agent.state = dict(reversed(agent.state.items()))
        agent.names = set(agent.names)
        agent.queued.put_nowait(1)
        agent.queued.get_nowait()

    assert changed(agent, use) == []


def test_attributes_that_may_change_are_ignored_wherever_they_are() -> None:
    agent = Tuned()

    def use() -> None:
        agent.last = agent.slotted.kept = "ada"
        agent.memory.items.append(1)

    assert changed(agent, use, "last", "kept") == ["memory.items"]


def test_functions_and_methods_are_looked_at_with_what_is_bound_to_them() -> None:
    seen: list[object] = []
    last = None

    async def agent(given: object, _kept: list[object] = []) -> object:  # noqa: B006  # what is tested
        nonlocal last
        last = given
        seen.append(given)
        _kept.append(given)
        return last

    def use() -> None:
        asyncio.run(agent("ada"))

    assert sorted(changed(agent, use)) == ["__defaults__[…]", "last", "seen"]
    assert sorted(changed(functools.partial(agent, "x"), use)) == ["__defaults__[…]", "seen"]
    tuned = Tuned()
    assert changed(tuned.learn, lambda: setattr(tuned, "last", 1)) == ["last"]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(one=json, other=json)
def test_two_values_that_differ_have_fingerprints_that_differ(one: Any, other: Any) -> None:  # noqa: ANN401
    agent = SimpleNamespace(value=one)
    before = Fingerprint(agent)
    assert before.changes(Fingerprint(agent)) == []
    agent.value = other
    found = before.changes(Fingerprint(agent))
    if one != other:
        assert found
        assert all(path.startswith("value") for path in found)


def test_it_looks_only_so_far_and_comes_to_its_end() -> None:
    deep: list[object] = []
    for _ in range(DEEPEST * 100):
        deep = [deep]
    agent = SimpleNamespace(deep=deep, wide=[[number] for number in range(MOST_OBJECTS)], last=None)
    agent.deep.append(agent)
    assert changed(agent, lambda: setattr(agent, "last", 1)) == ["last"]
