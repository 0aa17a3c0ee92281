"""What a run of openai-agents is made of: agents that keep to what is allowed, and a model that remembers.

Nothing of the user's is changed: agents, tools and handoffs are copied for each run.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import agents
from openai.types.responses import Response, ResponseCompletedEvent, ResponseFunctionToolCall

from runstream.adapters.at_work import at_work
from runstream.runner.json_safe import to_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from runstream.adapters.openai_agents_stream import Hearer
    from runstream.adapters.transcript import Made

#: What is the framework's, whose types are not checked.
Theirs = Any

#: The id of the response that an earlier attempt has had.
REMEMBERED: Final = "remembered"


class Crafted:
    """Makes the agents of one run out of the user's."""

    def __init__(self, hearer: Hearer) -> None:
        """Have the tools work for what `hearer` hears."""
        self._hearer = hearer

    def agent(self, agent: Theirs) -> Theirs:
        """Return an agent without the tools and handoffs that may not be used; tools work in contexts of their own."""
        tools = [self._tool(tool) for tool in agent.tools if self._hearer.allows(tool.name)]
        handoffs = [each if isinstance(each, agents.Handoff) else agents.handoff(each) for each in agent.handoffs]
        allowed = [self._handoff(each) for each in handoffs if self._hearer.allows(each.tool_name)]
        return agent.clone(tools=tools, handoffs=allowed)

    def _handoff(self, handoff: Theirs) -> Theirs:
        """Return a handoff to an agent that is made when it comes to it: agents may hand over to each other."""
        invoke = handoff.on_invoke_handoff

        async def go(*given: Theirs) -> Theirs:
            return self.agent(await invoke(*given))

        return replace(handoff, on_invoke_handoff=go)

    def _tool(self, tool: Theirs) -> Theirs:
        if not isinstance(tool, agents.FunctionTool):
            return tool
        made = copy.copy(tool)
        invoker = made.on_invoke_tool
        if hasattr(invoker, "_invoke_tool_impl"):  # a failure that is told to the model passes our way before it is
            invoker._invoke_tool_impl = self._working(tool.name, invoker._invoke_tool_impl)  # noqa: SLF001
        else:
            made.on_invoke_tool = self._working(tool.name, invoker)
        return made

    def _working(self, name: str, invoke: Callable[..., Awaitable[Theirs]]) -> Theirs:
        @functools.wraps(invoke)
        async def work(ctx: Theirs, args: str) -> Theirs:
            hearer = self._hearer
            with at_work(hearer.narration, ctx.tool_call_id, name, owner=hearer.owner):
                return await invoke(ctx, args)

        return work


class Remembered(agents.Model):  # type: ignore[misc]  # of the framework, whose types are not checked
    """A model that asks for the calls that an earlier attempt was about to make: they are not asked for anew."""

    def __init__(self, calls: Iterable[Made]) -> None:
        """Ask for these."""
        self._calls = list(calls)

    async def get_response(self, *given: Theirs, **options: Theirs) -> Theirs:
        """Say it as a whole."""
        _ = given, options
        return agents.ModelResponse(output=self._asked(), usage=agents.Usage(), response_id=None)

    async def stream_response(self, *given: Theirs, **options: Theirs) -> AsyncIterator[Theirs]:
        """Say it."""
        _ = given, options
        response = Response(
            id=REMEMBERED,
            created_at=0,
            model=REMEMBERED,
            object="response",
            output=self._asked(),
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
        )
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=0)

    def _asked(self) -> list[Theirs]:
        """Return the calls as a model asks for them."""
        return [
            ResponseFunctionToolCall(
                type="function_call", call_id=call.id, name=call.name, arguments=to_text(call.args), status="completed"
            )
            for call in self._calls
        ]
