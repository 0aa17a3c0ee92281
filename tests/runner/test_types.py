"""Types: what a person's own program sees of the SDK, as type checkers do; `make check` tells of one that is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import pytest

from runstream.runner import (
    Agent,
    AgentFunction,
    Delegated,
    ExecutionContext,
    Invocation,
    SubAgent,
    ToolDispatcher,
    ToolHandle,
    ToolRegistry,
    ToolUnknown,
)
from runstream.testing import Phase, State, local_server, local_server_sync
from runstream.v1.agent_execution_pb2 import AgentMessage, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

tools = ToolRegistry()
dispatcher = ToolDispatcher(tools)


@tools.tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


async def streams(invocation: Invocation) -> AsyncIterator[str]:
    """Greet."""
    yield f"Hello, {assert_type(invocation.message, str)}."


async def works(invocation: Invocation) -> str:
    """Use what there is."""
    assert_type(invocation.history, tuple[AgentMessage, ...])
    assert_type(invocation.agent.spec.instructions, str)
    assert_type(invocation.remaining(), float | None)
    context = assert_type(invocation.context, ExecutionContext)
    async with invocation.report.tool("add", {"one": 1}) as call:
        assert_type(assert_type(call, ToolHandle).id, str)
        call.result = 2
    async with invocation.report.sub_agent("critic", "Is it good?") as critic:
        assert_type(assert_type(critic, SubAgent).id, str)
        critic.output = "Yes."
    with pytest.raises(ToolUnknown) as told:
        await dispatcher.call("doubel", {}, context)
    assert_type(told.value.near, tuple[str, ...])
    assert_type(told.value.message, str)
    delegated = assert_type(await context.delegate("streams", "Ada"), Delegated)
    return delegated.answer


def blocks(invocation: Invocation) -> str:
    """Call a tool."""
    return str(dispatcher.call_sync("double", {"number": 3}, invocation.context))


async def test_a_typed_program_is_what_its_types_say() -> None:
    """Agents of each kind are agents to a type checker, and all that they are given and give has a type."""
    agents: dict[str, AgentFunction | Agent] = {"streams": streams, "works": Agent(works), "blocks": blocks}
    async with local_server() as server:
        await server.serve(agents)
        state = assert_type(await server.run("works"), State)
        assert assert_type(state.expect().answer, str) == "Hello, Ada."
        assert assert_type(state.tool("add"), ToolCall).name == "add"
        assert assert_type(state.phase, Phase) == "completed"
        assert (await server.run("blocks")).answer == "6"


def test_what_is_decorated_keeps_its_type() -> None:
    """A tool is the function that it was; what the registry has of it has types too."""
    assert assert_type(double(2), int) == 4
    assert assert_type(tools["double"].given_name, str) == assert_type(tools["double"].name, str) == "double"


def test_the_plain_ones_are_typed_alike() -> None:
    """A test without coroutines sees the same types."""
    with local_server_sync() as server:
        assert assert_type(server.run(streams, "Ada").answer, str) == "Hello, Ada."
        assert assert_type(server.address, str)
