"""Nested: a sub-agent that a tool runs by itself, so that the framework does not know of it."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runstream.runner.context.ambient import entered
from runstream.runner.tracing import spanned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.adapters.narration import Narration

#: A tool may run several at once: the call alone does not tell which one something is done by.
_NUMBERS: Final = itertools.count(1)


@dataclass(slots=True)
class Nested:
    """A sub-agent at work."""

    #: What the narration knows it by.
    owner: str
    #: What it has answered.
    output: object = None


@asynccontextmanager
async def nested(narration: Narration, call: str, name: str, task: object, *, owner: str) -> AsyncIterator[Nested]:
    """Do what is done in the block as a sub-agent, in its context: for tool call `call` of `owner`.

    BudgetExceeded when no agent may work for this one.
    """
    work = Nested(f"{call} {next(_NUMBERS)}")
    await narration.sub_agent(call, name, task, owner=owner, key=work.owner)
    try:
        with spanned("invoke_agent", name, narration.agent_context(work.owner)) as context, entered(context):
            yield work
    except Exception as error:
        await narration.sub_agent_ended(work.owner, error=error)
        raise
    await narration.sub_agent_ended(work.owner, output=work.output)
