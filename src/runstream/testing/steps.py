"""Steps: what a scripted agent can do, one thing after another."""

from __future__ import annotations

import asyncio
import re
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from runstream.runner import AgentFailure, AgentFunction, Approval, Event, ToolDeclined
from runstream.runner.agents import invoke
from runstream.testing.wake import Wake
from runstream.v1.agent_execution_pb2 import TOOL_CALL_COMPLETED, TOOL_CALL_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runstream.runner import Invocation
    from runstream.runner.messages import MessageKind
    from runstream.testing.clock import ManualClock


class Step(ABC):
    """Something that a scripted agent does."""

    @abstractmethod
    async def perform(self, invocation: Invocation, place: str) -> None:
        """Do it. `place` names the step within its script: an id for what it reports, the same in every attempt."""


#: What a script may hold: a step, a text to say, a message of the API to report, or an agent function to call.
AnyStep = Step | Event | AgentFunction


class ToolError(Exception):
    """What a scripted tool fails with."""


class ScriptEnded(Exception):
    """Ends a script before its last step. Caught by the script."""


@dataclass(frozen=True, slots=True)
class Say(Step):
    """Says a text, as a message of its own. With `words`, it streams: each word is a change of its own."""

    text: str
    _: KW_ONLY
    kind: MessageKind = "ai"
    words: bool = False

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Say it."""
        report = invocation.report
        if not self.words:
            await report.message(self.text, kind=self.kind, id=place)
            return
        message = await report.message(kind=self.kind, id=place)
        for word in re.findall(r"\s*\S+(?:\s+\Z)?|\s+", self.text):
            await message.text(word)
            await report.flush()


@dataclass(frozen=True, slots=True)
class Tool(Step):
    """Uses a tool, which returns `result`, or fails with `error` (and the script goes on).

    With `approval`, a person is asked first; `declined` is what is then said when the person does not let it run, and
    the script goes on. Without `declined`, it fails, as any agent does that does not catch `ToolDeclined`. The steps in
    `during` are performed while the tool runs.
    """

    name: str
    args: Mapping[str, object] = field(default_factory=dict)
    _: KW_ONLY
    result: object = ""
    error: str = ""
    approval: Approval | bool = False
    declined: str | None = None
    during: tuple[AnyStep, ...] = ()

    def __post_init__(self) -> None:
        """Check what is performed while it runs."""
        check_steps(self.during)

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Use it; when the script resumes, only if it had not ended."""
        known = invocation.report.recorded(place)
        if known is not None and known.status in (TOOL_CALL_COMPLETED, TOOL_CALL_FAILED):
            return
        try:
            with suppress(ToolError):
                await self._use(invocation, place)
        except ToolDeclined:
            if self.declined is None:
                raise
            await Say(self.declined).perform(invocation, f"{place}-declined")

    async def _use(self, invocation: Invocation, place: str) -> None:
        approval = Approval() if self.approval is True else self.approval or None
        async with invocation.report.tool(self.name, self.args, id=place, approval=approval) as call:
            for number, step in enumerate(self.during, start=1):
                await perform(step, invocation, f"{place}-{number}")
            if self.error:
                raise ToolError(self.error)
            call.result = self.result


@dataclass(frozen=True, slots=True)
class Ask(Step):
    """Asks a person for a message; `reply` makes of it what is said next."""

    prompt: str = ""
    reply: Callable[[str], str] | None = None

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Ask, wait, and reply."""
        said = await invocation.report.needs_input(self.prompt, id=place)
        if self.reply is not None:
            await Say(self.reply(said)).perform(invocation, f"{place}-reply")


@dataclass(frozen=True, slots=True)
class Sleep(Step):
    """Sleeps until so many seconds were let pass on a manual clock. What was said before is on the server by then."""

    seconds: float
    clock: ManualClock

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Sleep."""
        _ = place
        await invocation.report.flush()
        await self.clock.sleep(self.seconds)


class Gate(Step):
    """Waits until a test opens it; then it stays open. What was said before is on the server by then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._waiting: set[Wake] = set()

    def open(self) -> None:
        """Let pass whoever waits, and whoever comes. From any thread."""
        with self._lock:
            self._open = True
            waiting = tuple(self._waiting)
        for wake in waiting:
            wake.ring()

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Wait for the gate to open."""
        _ = place
        await invocation.report.flush()
        await self.passed()

    async def passed(self) -> None:
        """Return when the gate is open; for agents of any kind."""
        wake = Wake()
        with self._lock:
            if self._open:
                return
            self._waiting.add(wake)
        try:
            await wake.rung
        finally:
            with self._lock:
                self._waiting.discard(wake)


@dataclass(frozen=True, slots=True)
class Fail(Step):
    """Fails with a reason for programs and a message for people: raises `AgentFailure`."""

    reason: str
    message: str = ""

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Fail."""
        _ = invocation, place
        raise AgentFailure(self.reason, self.message)


@dataclass(frozen=True, slots=True)
class Raise(Step):
    """Raises an error, as a bug would."""

    error: Exception

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Raise it."""
        _ = invocation, place
        raise self.error


@dataclass(frozen=True, slots=True)
class Hang(Step):
    """Never goes on. With `stubborn`, not even when it is asked to end: then the server has to force it.

    It comes to no safe point, so it cannot be paused.
    """

    _: KW_ONLY
    stubborn: bool = False

    async def perform(self, invocation: Invocation, place: str) -> None:
        """Hang."""
        _ = place
        await invocation.report.flush()
        if self.stubborn:
            with suppress(asyncio.CancelledError):  # the runner asks once, and then leaves the agent to itself
                await asyncio.Event().wait()
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class End(Step):
    """Ends the script here, with an answer or without."""

    answer: str = ""

    async def perform(self, invocation: Invocation, place: str) -> None:
        """End."""
        if self.answer:
            await Say(self.answer).perform(invocation, place)
        raise ScriptEnded


async def perform(step: AnyStep, invocation: Invocation, place: str) -> None:
    """Do what a script holds at some place."""
    if isinstance(step, Step):
        await step.perform(invocation, place)
    elif isinstance(step, str):
        await Say(step).perform(invocation, place)
    elif isinstance(step, Message):
        await invocation.report.event(step)
    else:
        await invoke(step, invocation)


def check_steps(steps: Iterable[object]) -> None:
    """Raise TypeError for what is no step, before anything is performed."""
    for step in steps:
        if not (isinstance(step, Step | str | Message) or callable(step)):
            raise TypeError(f"a script holds steps, texts, messages of the API and functions, not {step!r}")
