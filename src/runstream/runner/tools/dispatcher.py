"""Dispatcher: calls tools, each in the context that it is given, and reports what becomes of it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from runstream.model.tool_names import sanitised
from runstream.runner.bridge import Bridge
from runstream.runner.calls import open_channel
from runstream.runner.context.ambient import entered
from runstream.runner.context.deadline import within_deadline
from runstream.runner.context.limits import Limits
from runstream.runner.context.session import context_of_session
from runstream.runner.context.value import bridge_of, bridged, narrowed
from runstream.runner.endings import sole
from runstream.runner.errors import (
    AgentFailure,
    DeadlineExceeded,
    ReportClosed,
    ToolBroke,
    ToolNotAllowed,
    ToolUnknown,
)
from runstream.runner.exits import exits_contained
from runstream.runner.reporter import own_call_id
from runstream.runner.tools.tool import read

if TYPE_CHECKING:
    from typing import Unpack

    from grpc.aio import Channel

    from runstream.runner.context.build import Given
    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.tools.handle import ToolHandle
    from runstream.runner.tools.parameters import Checked
    from runstream.runner.tools.registry import ToolRegistry
    from runstream.runner.tools.tool import Tool

#: As models write them, a JSON object; or what that would be.
Arguments = Mapping[str, object] | str | bytes


class ToolDispatcher:
    """Calls the tools of a registry. It keeps nothing between calls, and has no context but the one that is given."""

    __slots__ = ("registry",)

    def __init__(self, registry: ToolRegistry) -> None:
        """Call the tools of `registry`, those too that are added later."""
        self.registry: ToolRegistry = registry

    async def call(self, name: str, arguments: Arguments, context: ExecutionContext, *, call_id: str = "") -> Any:  # noqa: ANN401  # whatever the tool returns
        """Call a tool in a context, and return what it returns.

        `call_id` is the model's, made up unless given; one that comes again gets a number. It is reported as
        a tool call of the context: PENDING, RUNNING, then COMPLETED, or FAILED with a reason. What keeps it from
        running is reported so too, and raised: ToolNotAllowed, ToolUnknown, ToolArgumentsInvalid,
        DeadlineExceeded, BudgetExceeded. What the tool raises is raised as ToolBroke, unless it is an AgentFailure.
        """
        name, call_id = sanitised(name), own_call_id(context.report, call_id)
        try:
            tool = self._allowed(name, context)
            given = read(name, arguments)
            checked = tool.check(given)
            if context.remaining() == 0:
                raise DeadlineExceeded(_what(name))
        except AgentFailure as refused:
            await context.report.tool(name, _shown(name, arguments), id=call_id).refuse(refused)
            raise
        handle = context.report.tool(name, given, id=call_id, approval=tool.approval)
        async with AsyncExitStack() as stack:
            if tool.approval is None:
                await stack.enter_async_context(handle)
            else:
                async with within_deadline(context, _what(name)):  # a person may take long
                    await stack.enter_async_context(handle)
            result = await _run(tool, checked, context, handle)
            handle.result = "" if result is None else result
        return result

    def call_sync(self, name: str, arguments: Arguments, context: ExecutionContext, *, call_id: str = "") -> Any:  # noqa: ANN401  # whatever the tool returns
        """Call a tool as `call` does, from the thread of a plain function."""
        return context.wait(self.call(name, arguments, context, call_id=call_id))

    async def call_in_session(
        self, name: str, arguments: Arguments, session_id: str, *, server: str | Channel, **given: Unpack[Given]
    ) -> Any:  # noqa: ANN401  # whatever the tool returns
        """Call a tool in a context that is made of a session, read from `server`: HOST:PORT, or a channel. Deprecated.

        Use `call`, with the context of the invocation: a session does not say what called, for how long, and within
        which limits. `given` is what `build_context` takes. Outside of any execution, nobody hears the reports.
        """
        told = "call_in_session is deprecated: use call, with the context of the invocation"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        channel = open_channel(server) if isinstance(server, str) else server
        try:
            context = await context_of_session(channel, session_id, **given)
        finally:
            if isinstance(server, str):
                await channel.close()
        return await self.call(name, arguments, context)

    def _allowed(self, name: str, context: ExecutionContext) -> Tool:
        """Return a tool that may be used.

        What a context does not allow is refused before it is looked for: the answer does not tell which tools exist
        beyond it.
        """
        if not context.allows(name):
            raise ToolNotAllowed(name)
        tool = self.registry.get(name)
        if tool is None:
            raise ToolUnknown(name, self.registry.near(name, context))
        return tool


async def _run(tool: Tool, checked: Checked, context: ExecutionContext, handle: ToolHandle) -> Any:  # noqa: ANN401  # as above
    """Run a tool in a context of its own, until the deadline."""
    child = narrowed(context, Limits(), handle.id, below=False)
    try:
        with handle.traced(child) as within, exits_contained(_what(tool.name)):
            async with within_deadline(within, _what(tool.name)):
                return await (_in_thread if tool.blocks else _here)(tool, checked, within)
    except Exception as error:
        cause = sole(error)
        if cause is error and isinstance(error, AgentFailure | ReportClosed):
            raise
        if isinstance(cause, AgentFailure | ReportClosed):
            raise cause from error
        raise ToolBroke(tool.name, handle.why(cause)) from cause


async def _here(tool: Tool, checked: Checked, context: ExecutionContext) -> Any:  # noqa: ANN401  # as above
    with entered(context):
        return await tool.bound(checked, context)()


async def _in_thread(tool: Tool, checked: Checked, context: ExecutionContext) -> Any:  # noqa: ANN401  # as above
    """Run a plain function in a thread. It has a bridge of its own: once its call is stopped, it waits for nothing."""
    bridge = Bridge(above=bridge_of(context))
    context = bridged(context, bridge)
    with entered(context), bridge:
        result = await bridge.in_thread(tool.bound(checked, context))
        return await result if inspect.isawaitable(result) else result


def _what(name: str) -> str:
    return f"the tool {name!r}"


def _shown(name: str, arguments: Arguments) -> Mapping[str, object]:
    """Return what is reported of arguments that may be no object."""
    try:
        return read(name, arguments)
    except AgentFailure:
        return {"arguments": arguments.decode(errors="replace") if isinstance(arguments, bytes) else arguments}
