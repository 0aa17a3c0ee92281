"""LangGraph, and what is built on it: graphs, agents of LangChain, deepagents.

agent = LangGraphAgent(create_agent(model, tools))
Runner("127.0.0.1:7400", agents={"helper": agent}).run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

try:
    from langgraph.errors import GraphRecursionError
except ImportError as error:
    raise ImportError("runstream.adapters.langgraph needs LangGraph: pip install 'runstream[langgraph]'") from error

from runstream.adapters.langgraph_run import GraphRun
from runstream.adapters.narration import Narration
from runstream.adapters.source import Source
from runstream.runner.errors import AgentFailure
from runstream.runner.json_safe import to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runstream.runner import Invocation
    from runstream.runner.context import ExecutionContext

__all__ = ["LangGraphAgent"]

#: A compiled graph. LangGraph has types of its own, which are not checked here.
Graph = Any


class LangGraphAgent:
    """An agent that is a graph. It serves any number of invocations at once, and keeps nothing of them.

    `graph` is a compiled graph, or a function of the invocation that returns one, async or not. `context` makes of our
    context what the graph is given as its own; without it, that is ours. `config` is LangGraph's, or a function of the
    invocation that returns it. `input` makes the graph's input of the invocation, for graphs whose state is not made of
    messages; `output` makes the answer of the last state, where that is not the last message.

    With `history="server"` the graph is told what was said in the session, and what an earlier attempt has done. With
    "thread", its own checkpointer knows: under the session's id, or the execution's if it is stateless.
    """

    def __init__(  # noqa: PLR0913  # each is an option
        self,
        graph: Graph | Callable[[Invocation], Graph],
        *,
        context: Callable[[ExecutionContext], Any] | None = None,
        history: Literal["server", "thread"] = "server",
        config: Mapping[str, Any] | Callable[[Invocation], Mapping[str, Any]] | None = None,
        input: Callable[[Invocation], Any] | None = None,  # noqa: A002  # as LangGraph calls it
        output: Callable[[Any], object] | None = None,
    ) -> None:
        """Take the graph. TypeError for what is no compiled graph.

        ValueError for an unknown `history`, for "thread" and a graph without a checkpointer, and for a graph that is
        given no `input` though its state has no messages.
        """
        if history not in ("server", "thread"):
            raise ValueError(f"history must be server or thread, not {history!r}")
        if history == "thread" and not getattr(graph, "checkpointer", True):
            raise ValueError("with history='thread', the graph needs a checkpointer: compile it with one")
        self._source = Source(graph, _is_graph, "a compiled graph")
        self._takes_messages = input is None
        self._check(graph)
        self._context = context
        self._keeps_thread = history == "thread"
        self._config = config
        self._input = input
        self._output = output

    async def __call__(self, invocation: Invocation) -> None:
        """Run the graph, and report what it does. AgentFailure, reason LIMIT_EXCEEDED, for too many steps."""
        graph = await self._source.agent(invocation)
        self._check(graph)
        config = self._config(invocation) if callable(self._config) else self._config
        context = invocation.context if self._context is None else self._context(invocation.context)
        async with Narration(invocation) as narration:
            run = GraphRun(graph, invocation, narration, keeps_thread=self._keeps_thread)
            run.configure(config or {}, context, with_state=self._output is not None)
            try:
                await run.to_the_end(self._input)
            except GraphRecursionError as error:
                raise AgentFailure("LIMIT_EXCEEDED", str(error)) from error
            await narration.answer(self._answer(graph, run, invocation))

    def _answer(self, graph: Graph, run: GraphRun, invocation: Invocation) -> str:
        if self._output is not None:
            said = self._output(run.state)
            return "" if said is None else to_text(said)
        if not (run.answer or _has_messages(graph) or invocation.report.last_said):
            raise AgentFailure("NO_ANSWER", "The graph has no messages to answer with: give LangGraphAgent an output=.")
        return run.answer

    def _check(self, graph: Graph) -> None:
        if self._takes_messages and not _has_messages(graph):
            raise ValueError("the state of the graph has no messages: give LangGraphAgent an input=, and an output=")


def _is_graph(graph: Graph) -> bool:
    return hasattr(graph, "astream")


def _has_messages(graph: Graph) -> bool:
    """Tell whether a graph's state has messages. It is assumed of a function, and of what cannot be looked into."""
    return "messages" in getattr(graph, "channels", ("messages",))
