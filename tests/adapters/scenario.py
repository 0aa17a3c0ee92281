"""One scenario that an agent of every framework goes through, and what it leaves, told so that it can be compared.

An agent that is scripted by it does, in order, each as one call of its model:

1. says "Let me add." and calls `add` with a=1, b=2: 3
2. calls `add` with the same arguments again, without a word: 3
3. calls `broken`, which fails so that the model is told and the run goes on
4. calls `nosuch`, a tool that there is not
5. calls `measure` with what JSON has no word for, or with arguments that are no JSON, whichever can be: "wide"
6. calls two sub-agents at once, both of name `researcher`, for "the first" and "the second". Each says "Looking." and
   calls `add` with a=1, b=2, then says "Found 3."
7. says "All done."

Every call of a model is told with its usage. `plain` is the reference.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from runstream.testing import ManualClock, local_server
from runstream.v1.agent_execution_pb2 import TOOL_CALL_RUNNING, MessageType, SubAgentStatus, ToolCallStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runstream.runner import Agent, AgentFunction, Invocation, Reporter
    from runstream.testing import Handle, State
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus, ToolCall

TASKS = ("the first", "the second")
#: How long, in seconds, the longest of them may take; no time passes but by hand.
DEADLINE = 3_600

#: What the reference leaves.
WHOLE = [
    "the execution is completed",
    "researcher 1 was asked 'the first': COMPLETED 'Found 3.'",
    "researcher 2 was asked 'the second': COMPLETED 'Found 3.'",
    "agent says (AI) 'Let me add.'",
    "agent says (AI) 'All done.'",
    "agent calls add(a=1, b=2): COMPLETED '3', asked in 'Let me add.'",
    "agent calls add(a=1, b=2): COMPLETED '3'",
    "agent calls broken(): FAILED error",
    "agent calls nosuch(): FAILED error",
    "agent calls measure(…): COMPLETED 'wide'",
    "agent calls researcher 1: COMPLETED 'Found 3.'",
    "agent calls researcher 2: COMPLETED 'Found 3.'",
    "agent has called its model 7 times",
    "researcher 1 says (AI) 'Looking.'",
    "researcher 1 says (AI) 'Found 3.'",
    "researcher 1 calls add(a=1, b=2): COMPLETED '3', asked in 'Looking.', within the call of researcher 1",
    "researcher 1 has called its model 2 times",
    "researcher 2 says (AI) 'Looking.'",
    "researcher 2 says (AI) 'Found 3.'",
    "researcher 2 calls add(a=1, b=2): COMPLETED '3', asked in 'Looking.', within the call of researcher 2",
    "researcher 2 has called its model 2 times",
]
CANCELLED = [
    "the execution is cancelled enough",
    "agent calls hang(): INTERRUPTED ''",
    "agent has called its model 1 times",
]
OVERDUE = ["the execution is failed DEADLINE_EXCEEDED", *CANCELLED[1:]]
CRASHED = [
    "the execution is failed AGENT_ERROR",
    "agent calls crash(): FAILED error",
    "agent has called its model 1 times",
]


@dataclass(frozen=True)
class Place:
    """Something that JSON has no word for."""

    name: str


async def plain(invocation: Invocation) -> str:
    """Do what the scenario says, by a plain function: the reference."""
    report = invocation.report
    for text in ("Let me ", "add."):
        await report.text(text)
    await use_add(report)
    await use_add(report)
    await use(report, "broken", {}, LookupError("it is broken"))
    await use(report, "nosuch", {}, LookupError("there is no such tool"))
    async with report.tool("measure", {"at": Place("here")}) as call:
        call.result = "wide"
    await report.usage("fake", input_tokens=1)
    await asyncio.gather(*(research(invocation, task) for task in TASKS))
    await report.usage("fake", input_tokens=1)
    await report.usage("fake", input_tokens=1)
    return "All done."


async def research(invocation: Invocation, task: str) -> None:
    """Call one of the two sub-agents."""
    async with invocation.report.tool("researcher", {"task": task}) as call:
        call.result = await invocation.context.sub_agent(researcher, task, call_id=call.id)


async def researcher(invocation: Invocation) -> str:
    """Do what each of the sub-agents does."""
    await invocation.report.text("Looking.")
    await use_add(invocation.report)
    await invocation.report.usage("fake", input_tokens=1)
    return "Found 3."


async def use_add(report: Reporter) -> None:
    """Add, as every agent of the scenario does."""
    async with report.tool("add", {"a": 1, "b": 2}) as call:
        call.result = 3
    await report.usage("fake", input_tokens=1)


async def use(report: Reporter, name: str, args: Mapping[str, object], error: Exception) -> None:
    """Use a tool that fails, and go on."""
    try:
        async with report.tool(name, args):
            raise error
    except LookupError:
        await report.usage("fake", input_tokens=1)


async def plain_hang(invocation: Invocation) -> None:
    """Call `hang`, which never ends, when the model has said so."""
    await invocation.report.usage("fake", input_tokens=1)
    async with invocation.report.tool("hang"):
        await asyncio.Event().wait()


async def plain_crash(invocation: Invocation) -> None:
    """Call `crash`, whose error ends the run, when the model has said so."""
    await invocation.report.usage("fake", input_tokens=1)
    async with invocation.report.tool("crash"):
        raise RuntimeError("crashed")


async def whole(agent: AgentFunction | Agent) -> list[str]:
    """Return what an agent leaves that goes through the scenario to its end."""
    async with local_server() as server:
        return list(told(await server.run(agent, "go")))


async def crashed(agent: AgentFunction | Agent) -> list[str]:
    """Return what an agent leaves that calls `crash`."""
    return await whole(agent)


async def cancelled(agent: AgentFunction | Agent) -> list[str]:
    """Return what an agent leaves that is cancelled while it calls `hang`."""
    async with local_server() as server:
        handle = await server.start(agent, "go")
        await hanging(handle)
        await handle.cancel("enough")
        return list(told(await handle.result()))


async def overdue(agent: AgentFunction | Agent) -> list[str]:
    """Return what an agent leaves whose deadline comes while it calls `hang`."""
    async with local_server(clock=ManualClock()) as server:
        handle = await server.start(agent, "go", max_duration=DEADLINE)
        await hanging(handle)
        await server.advance(DEADLINE)
        return list(told(await handle.result()))


async def hanging(handle: Handle) -> State:
    """Return when `hang` is at work."""
    return await handle.until(lambda state: any(_hangs(call) for call in state.tools))


def _hangs(call: ToolCall) -> bool:
    return call.name == "hang" and call.status == TOOL_CALL_RUNNING


def expected(lines: list[str], differences: Mapping[str, str | None]) -> list[str]:
    """Return what the reference has left, with the lines replaced, or dropped, in which a framework must differ."""
    unknown = differences.keys() - set(lines)
    assert not unknown, f"there is no line {unknown}"
    found = [differences.get(line, line) for line in lines]
    return [line for line in found if line is not None]


def told(state: State) -> Iterator[str]:
    """Tell what an execution has come to, line by line: ids and times left out, sub-agents in the order of their tasks.

    Of an error it is told that there is one, of arguments that are no JSON that there are some.
    """
    status = state.status
    yield f"the execution is {state.phase} {status.reason}".rstrip()
    owners = {"": "agent"}
    for number, sub in enumerate(sorted(status.sub_agent_executions, key=lambda sub: sub.input), start=1):
        owners[sub.id] = f"{sub.name} {number}"
        ended = "error" if sub.error else repr(sub.output)
        yield f"{owners[sub.id]} was asked {sub.input!r}: {_name(SubAgentStatus, sub.status)} {ended}"
    yield from _by_owner(status, owners)


def _by_owner(status: AgentExecutionStatus, owners: Mapping[str, str]) -> Iterator[str]:
    lines: dict[str, list[str]] = defaultdict(list)
    said = {message.id: message.content for message in status.messages}
    sub_agents = {sub.call_id: owners[sub.id] for sub in status.sub_agent_executions}
    for message in status.messages:
        kind = _name(MessageType, message.type)
        lines[message.owner_id].append(f"{owners[message.owner_id]} says ({kind}) {message.content!r}")
    for call in sorted(status.tool_calls, key=lambda call: sub_agents.get(call.id, "")):
        does = f"{owners[call.owner_id]} calls {_call(call, sub_agents)}"
        if call.message_id:
            does += f", asked in {said.get(call.message_id)!r}"
        if call.parent_call_id:
            does += f", within the call of {sub_agents.get(call.parent_call_id)}"
        lines[call.owner_id].append(does)
    for owner, who in owners.items():
        yield from lines[owner]
        yield f"{who} has called its model {sum(usage.owner_id == owner for usage in status.usage)} times"


def _call(call: ToolCall, sub_agents: Mapping[str, str]) -> str:
    args = sorted(MessageToDict(call.args).items())
    what = f"{call.name}({', '.join(f'{name}={value:g}' for name, value in args if isinstance(value, float))})"
    if call.name == "measure":
        what = f"measure({'…' if args else ''})"
    if call.id in sub_agents:
        what = sub_agents[call.id]
    outcome = "error" if call.error else repr(call.result)
    done = "" if call.completed_at else ", not ended"
    return f"{what}: {' '.join(filter(None, (_name(ToolCallStatus, call.status), call.reason, outcome)))}{done}"


def _name(kind: object, value: int) -> str:
    name: Callable[[int], str] = kind.Name  # type: ignore[attr-defined]  # of an enum of the API
    return name(value).removeprefix("MESSAGE_").removeprefix("TOOL_CALL_").removeprefix("SUB_AGENT_")
