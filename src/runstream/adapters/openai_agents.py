"""openai-agents: its agents as agents of a runner.

    agent = OpenAIAgentsAgent(Agent(name="helper", model="gpt-5.2", tools=[search, agent_tool(researcher)]))
    Runner("127.0.0.1:7400", agents={"helper": agent}).run()

The framework's tracing, which sends what was said to a remote service, is off in every run. What an agent of its
`as_tool` does is not streamed; that of `agent_tool`, or of a tool that calls `sub_agent`, is told whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import agents
    from agents.tool_context import ToolContext
except ImportError as error:
    raise ImportError(
        "runstream.adapters.openai_agents needs openai-agents: pip install 'runstream[openai-agents]'"
    ) from error

from runstream.adapters.narration import Narration
from runstream.adapters.nested import nested
from runstream.adapters.openai_agents_stream import HEARER, Hearer
from runstream.adapters.source import Source
from runstream.adapters.transcript import transcript
from runstream.runner.errors import NoContext
from runstream.runner.json_safe import to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runstream.adapters.openai_agents_stream import MakeContext, Theirs
    from runstream.adapters.transcript import Turn
    from runstream.runner import Invocation
    from runstream.runner.context import ExecutionContext


class OpenAIAgentsAgent:
    """An agent of openai-agents. It may serve any number of invocations at once: it keeps nothing of them.

    `agent` is the framework's, or a function of the invocation that returns one, async or not. `context` makes what
    tools find as `ctx.context` of our context, which they find there otherwise. `run_config` is a `RunConfig`; whatever
    it says, tracing is off, and the model is told when it calls a tool that there is not. `max_turns` is how often the
    model may be called, the framework's own number unless given; less when the budget has less.
    """

    def __init__(
        self,
        agent: Theirs | Callable[[Invocation], Theirs],
        *,
        context: MakeContext | None = None,
        run_config: Theirs = None,
        max_turns: int | None = None,
    ) -> None:
        """Take the agent. TypeError for what is none."""
        self._source = Source(agent, _is_agent, "an Agent of openai-agents")
        self._context = context or _itself
        self._run_config = run_config or agents.RunConfig()
        self._max_turns = max_turns

    async def __call__(self, invocation: Invocation) -> None:
        """Run the agent, and report what it does."""
        agent = await self._source.agent(invocation)
        async with Narration(invocation) as narration:
            hearer = Hearer(narration, "", self._context, self._run_config)
            turns = transcript(invocation)
            calls = turns[-1].calls if turns and turns[-1].open else ()
            output = await hearer.run(agent, list(_items(turns)) or invocation.message, self._max_turns, calls)
            await narration.answer(to_text(output))


async def sub_agent(  # noqa: PLR0913  # each is an option
    ctx: Theirs,
    agent: Theirs,
    message: str | list[Theirs],
    *,
    name: str = "",
    context: MakeContext | None = None,
    max_turns: int | None = None,
) -> Any:  # noqa: ANN401  # the framework's
    """Run another agent within a tool of one that is served, as its sub-agent; return its output.

    `ctx` is the tool's `ToolContext`. What the agent does is told as its own. It works in a context of its own, a child
    of ours, and spends of the same budget. `name` is what it is called, the agent's name unless given. Its tools find
    what is made as for the agent above it, unless `context` is given. BudgetExceeded when no agent may work for this
    one.
    """
    above = HEARER.get()
    if above is None:
        raise NoContext
    async with nested(above.narration, ctx.tool_call_id, name or agent.name, message, owner=above.owner) as work:
        hearer = Hearer(above.narration, work.owner, context or above.make_context, above.run_config)
        work.output = await hearer.run(agent, message, max_turns)
    return work.output


def agent_tool(agent: Theirs, name: str = "", description: str = "", **options: Theirs) -> Any:  # noqa: ANN401  # the framework's
    """Make a tool of an agent, as its `as_tool` does, whose work is told as that of a sub-agent.

    `options` are those of `sub_agent`.
    """

    async def work(ctx: Theirs, input: str) -> Theirs:  # noqa: A002  # as the framework calls it
        return await sub_agent(ctx, agent, input, **options)

    work.__annotations__ = {"ctx": ToolContext, "input": str}  # the framework reads which are arguments
    described = description or agent.handoff_description or f"Let {agent.name} do it."
    return agents.function_tool(work, name_override=name or agent.name, description_override=described)


def _is_agent(agent: Theirs) -> bool:
    return isinstance(agent, agents.Agent)


def _itself(context: ExecutionContext) -> ExecutionContext:
    return context


def _items(turns: Iterable[Turn]) -> Iterator[dict[str, Theirs]]:
    """Make the framework's items of what was said, without the calls that are still to be made."""
    for turn in turns:
        if turn.text:
            yield {"role": turn.role, "content": turn.text}
        for call in turn.calls if not turn.open else ():
            args = to_text(call.args)
            yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": args}
            yield {"type": "function_call_output", "call_id": call.id, "output": call.result}
