"""pydantic-ai: its agents as agents of a runner.

    agent = PydanticAIAgent(Agent("openai:gpt-5.2", tools=[search]))
    Runner("127.0.0.1:7400", agents={"helper": agent}).run()

A nested `agent.run` streams to nobody. A tool that calls `sub_agent` in its place is told whole.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

try:
    from pydantic_ai import messages
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.capabilities import ReinjectSystemPrompt
    from pydantic_ai.run import AgentRunResultEvent
except ImportError as error:
    raise ImportError(
        "runstream.adapters.pydantic_ai needs pydantic-ai: pip install 'runstream[pydantic-ai]'"
    ) from error

from runstream.adapters.narration import Narration
from runstream.adapters.nested import nested
from runstream.adapters.pydantic_ai_stream import HEARER, Hearer
from runstream.adapters.source import Source
from runstream.adapters.transcript import transcript
from runstream.runner.errors import NoContext
from runstream.runner.json_safe import to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runstream.adapters.pydantic_ai_stream import MakeDeps, Theirs
    from runstream.adapters.transcript import Made, Turn
    from runstream.runner import Invocation
    from runstream.runner.context import ExecutionContext


#: The options of a run that are not ours to give.
_OPTIONS: Final = inspect.signature(AbstractAgent.run_stream_events).parameters.keys() - {
    "self",
    "user_prompt",
    "message_history",
    "deferred_tool_results",
    "deps",
}


class PydanticAIAgent:
    """An agent of pydantic-ai. It may serve any number of invocations at once: it keeps nothing of them.

    `agent` is the framework's, or a function of the invocation that returns one, async or not. `deps` makes what tools
    find as `ctx.deps` of our context, which they find there otherwise. `options` are those of `run_stream_events`, such
    as `model`, `model_settings`, `toolsets` and `usage_limits`.
    """

    def __init__(
        self, agent: Theirs | Callable[[Invocation], Theirs], *, deps: MakeDeps | None = None, **options: Theirs
    ) -> None:
        """Take the agent. TypeError for what is none, and for an option that there is not."""
        unknown = options.keys() - _OPTIONS
        if unknown:
            raise TypeError(f"PydanticAIAgent has no option {', '.join(map(repr, sorted(unknown)))}")
        self._source = Source(agent, _is_agent, "an agent of pydantic-ai")
        self._deps = deps or _itself
        self._options = options

    async def __call__(self, invocation: Invocation) -> None:
        """Run the agent, and report what it does."""
        agent = await self._source.agent(invocation)
        async with Narration(invocation) as narration:
            hearer = Hearer(narration, "", self._deps)
            options = hearer.options(self._options)
            # The framework leaves the system prompt out when there is a history.
            options["capabilities"].append(ReinjectSystemPrompt())
            prompt, history = _conversation(invocation)
            run = agent.run_stream_events(prompt, message_history=history, **options)
            async with hearer.blaming(), run as events:
                async for event in events:
                    await narration.safe_point()
                    if isinstance(event, AgentRunResultEvent):
                        await narration.answer(to_text(event.result.output))


async def sub_agent(
    ctx: Theirs,
    agent: Theirs,
    prompt: str,
    *,
    name: str = "",
    deps: MakeDeps | None = None,
    **options: Theirs,
) -> Any:  # noqa: ANN401  # the framework's
    """Run another agent within a tool of one that is served, as its sub-agent; return its output.

    `ctx` is the tool's `RunContext`. What the agent does is told as its own. It works in a context of its own, a child
    of ours, and spends of the same budget: give it no `usage`. `name` is what it is called, the agent's name unless
    given. Its deps are made as those of the agent above it unless `deps` is given; `options` are those of `agent.run`.
    BudgetExceeded when no agent may work for this one.
    """
    above = HEARER.get()
    if above is None:
        raise NoContext
    async with nested(
        above.narration, ctx.tool_call_id, name or agent.name or "agent", prompt, owner=above.owner
    ) as work:
        hearer = Hearer(above.narration, work.owner, deps or above.deps)
        async with hearer.blaming():
            result = await agent.run(prompt, **hearer.options(options))
        work.output = result.output
    return result.output


def _is_agent(agent: Theirs) -> bool:
    return hasattr(agent, "run_stream_events")


def _itself(context: ExecutionContext) -> ExecutionContext:
    return context


def _conversation(invocation: Invocation) -> tuple[str | None, list[Theirs]]:
    """Return what the agent is asked, unless it goes on with its own work, and what was said before."""
    turns = transcript(invocation)
    if not turns:
        return invocation.message, []
    if turns[-1].role == "user":
        return turns[-1].text, list(_messages(turns[:-1]))
    return None, list(_messages(turns))  # of an open turn, the framework makes the calls


def _messages(turns: Iterable[Turn]) -> Iterator[Theirs]:
    """Make the framework's messages of what was said."""
    for turn in turns:
        if turn.role == "user":
            yield messages.ModelRequest([messages.UserPromptPart(turn.text)])
            continue
        said = [messages.TextPart(turn.text)] if turn.text else []
        asked = (messages.ToolCallPart(call.name, call.args, call.id) for call in turn.calls)
        yield messages.ModelResponse([*said, *asked])
        if turn.calls and not turn.open:
            yield messages.ModelRequest([_returned(call) for call in turn.calls])


def _returned(call: Made) -> Theirs:
    outcome = "failed" if call.failed else "success"
    return messages.ToolReturnPart(call.name, call.result, call.id, outcome=outcome)
