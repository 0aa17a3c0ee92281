"""Pacing: lets an agent without a language model take its time, so that a person can follow what it does."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runstream.runner import Reporter

WORDS_PER_PIECE = 3
SECONDS_PER_PIECE = 0.06
SECONDS_PER_TOOL = 0.3


class Finding(Protocol):
    """What a tool finds out."""

    def text(self) -> str:
        """Return it as the result of the tool call."""


F = TypeVar("F", bound=Finding)


class Paced:
    """Speaks and works through a reporter, at a pace: 1 is for people, 0 takes no time at all.

    Every entry has an id that is the same in every attempt. So an agent that is resumed, and begins anew, writes over
    what it said before in place of saying it a second time.
    """

    def __init__(self, report: Reporter, pace: float) -> None:
        self._pace = pace
        self.report = report
        self.letters = 0
        """How many it has said."""

    async def say(self, name: str, text: str) -> None:
        """Say something as a message of its own, a few words at a time, as a model does."""
        message = await self.report.message(id=name)
        self.letters += len(text)
        for piece in pieces(text):
            await message.text(piece)
            await self._pause(SECONDS_PER_PIECE)

    async def use(self, tool: str, args: Mapping[str, str], find: Callable[[], F], name: str = "") -> F:
        """Use a tool, in a thread since it reads files, and return what it found."""
        async with self.report.tool(tool, args, id=name or tool) as call:
            await self._pause(SECONDS_PER_TOOL)
            found = await asyncio.to_thread(find)
            call.result = found.text()
        return found

    def as_another(self, report: Reporter) -> Paced:
        """Return one that speaks for a sub-agent, at the same pace."""
        return Paced(report, self._pace)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._pace)


def pieces(text: str) -> list[str]:
    """Return the text in pieces of a few words; joined, they are the text."""
    words = re.findall(r"\s*\S+|\s+$", text)
    return ["".join(words[at : at + WORDS_PER_PIECE]) for at in range(0, len(words), WORDS_PER_PIECE)]
