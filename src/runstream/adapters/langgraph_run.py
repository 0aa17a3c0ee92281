"""A run of a LangGraph graph, from what it is given to its end, over everything that it asks of people between."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from runstream.adapters.langgraph_guard import Guard
from runstream.adapters.langgraph_interrupts import Interrupts
from runstream.adapters.langgraph_place import Patience, Place
from runstream.adapters.langgraph_stream import MODES, Stream
from runstream.adapters.langgraph_tools import contained
from runstream.adapters.transcript import closed, transcript
from runstream.runner.errors import AgentFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from runstream.adapters.narration import Narration
    from runstream.adapters.transcript import Turn
    from runstream.runner import Invocation

#: The key of the execution's id in the metadata of all that is done, checkpoints included.
_EXECUTION: Final = "runstream_execution"
#: What the node is called that calls the model: in graphs of `create_agent`, and in those of the prebuilt agent.
_MODELS: Final = ("model", "agent")
_NO_CHECKPOINTER: Final = (
    "The graph stops to ask a person, and cannot go on with the answer: compile it with a checkpointer, such as "
    "InMemorySaver()."
)


class GraphRun:
    """One run."""

    def __init__(self, graph: Any, invocation: Invocation, narration: Narration, *, keeps_thread: bool) -> None:  # noqa: ANN401
        """Run `graph`, a compiled one. Its checkpointer is used if it `keeps_thread`; otherwise one that forgets."""
        self._keeps_thread = keeps_thread
        self._can_be_asked = bool(getattr(graph, "checkpointer", None))
        if not keeps_thread and self._can_be_asked:
            graph = graph.copy(update={"checkpointer": InMemorySaver()})
        self._graph = contained(graph)
        self._invocation = invocation
        self._narration = narration
        self._stream = Stream(narration)
        self._interrupts = Interrupts(invocation, narration, self._stream)
        self._config: dict[str, Any] = {}
        self._options: dict[str, Any] = {}
        #: The last state, if it was asked for.
        self.state: Any = None

    @property
    def answer(self) -> str:
        """The last message of the graph's own model."""
        return self._stream.last

    def configure(self, given: Mapping[str, Any], context: Any, *, with_state: bool) -> None:  # noqa: ANN401
        """Take the user's config and context; ours are added to them."""
        ours = self._invocation.context
        ids = {_EXECUTION: ours.execution, "runstream_attempt": ours.attempt}
        thread = ours.session or ours.execution or secrets.token_hex()
        self._config = {
            **given,
            "configurable": {"thread_id": self._narration.within(thread), **given.get("configurable", {})},
            "metadata": {**ids, **given.get("metadata", {})},
            "callbacks": _with(given.get("callbacks"), Patience(self._stream), Place(self._stream), Guard(ours)),
        }
        modes = [*MODES, "values"] if with_state else list(MODES)
        self._options = {"context": context, "stream_mode": modes, "subgraphs": True, "version": "v2"}
        if self._can_be_asked and not self._keeps_thread:
            self._options["durability"] = "exit"  # it outlives an interrupt, and nothing else

    async def to_the_end(self, make: Callable[[Invocation], Any] | None) -> None:
        """Run the graph to its end, with the input that `make` makes, or else with messages."""
        if self._keeps_thread and await self._goes_on():
            return
        if make is not None:
            await self._run(make(self._invocation))
        elif self._keeps_thread:
            await self._run({"messages": [HumanMessage(self._invocation.message)]})
        else:
            await self._begin(transcript(self._invocation))

    async def _begin(self, turns: list[Turn]) -> None:
        """Begin with what was said and done before; with the calls that are still to be made, where that can be."""
        if turns and turns[-1].open and await self._stands_before_its_tools(list(_messages(turns))):
            await self._run(None)
        else:
            await self._run({"messages": list(_messages(closed(turns)))})

    async def _stands_before_its_tools(self, messages: list[Any]) -> bool:
        """Bring the graph where its model has asked for tools, if it is one of LangChain's or like them."""
        nodes = getattr(self._graph, "nodes", {})
        model = next((name for name in _MODELS if name in nodes), None)
        if model is None or not isinstance(getattr(nodes.get("tools"), "bound", None), ToolNode):
            return False
        graph = self._graph.copy(update={"checkpointer": InMemorySaver()})
        await graph.aupdate_state(self._config, {"messages": messages}, as_node=model)
        state = await graph.aget_state(self._config)
        if not state.next:
            return False
        self._graph = graph
        await self._stream.go_on(state.values["messages"])
        return True

    async def _goes_on(self) -> bool:
        """Go on with what an earlier attempt has left in the thread, if it has left anything."""
        state = await self._graph.aget_state(self._config)
        if not state.metadata or state.metadata.get(_EXECUTION) != self._invocation.context.execution:
            return False
        await self._stream.go_on(state.values.get("messages", []) if isinstance(state.values, dict) else [])
        self.state = state.values
        if state.interrupts:
            self._stream.interrupts = list(state.interrupts)
            await self._answered()
        elif state.next:
            await self._run(None)
        return True

    async def _run(self, given: Any) -> None:  # noqa: ANN401  # of the graph's own type
        await self._once(given)
        await self._answered()

    async def _answered(self) -> None:
        """Run the graph on as long as it stops to ask. AgentFailure if it could not go on with the answer."""
        while self._stream.interrupts:
            if not self._can_be_asked:
                raise AgentFailure("CHECKPOINTER_MISSING", _NO_CHECKPOINTER)
            await self._once(Command(resume=await self._interrupts.answers()))

    async def _once(self, given: Any) -> None:  # noqa: ANN401  # as above
        """Run the graph until it ends, or stops to ask. It may be paused where a node begins."""
        async with aclosing(self._graph.astream(given, self._config, **self._options)) as parts:
            async for part in parts:
                kind, path, data = part["type"], part["ns"], part["data"]
                if kind == "tasks" and "input" in data:
                    await self._narration.safe_point()
                if kind == "values" and not path:
                    self.state = data
                await self._stream.hear(kind, path, data)


def _messages(turns: Iterable[Turn]) -> Iterator[Any]:
    """Return what was said and done before as LangChain's messages."""
    for turn in turns:
        if turn.role == "user":
            yield HumanMessage(turn.text)
            continue
        calls = [{"type": "tool_call", "id": call.id, "name": call.name, "args": call.args} for call in turn.calls]
        yield AIMessage(turn.text, tool_calls=calls)
        for call in turn.calls if not turn.open else ():
            yield ToolMessage(call.result, tool_call_id=call.id, status="error" if call.failed else "success")


def _with(callbacks: Any, *ours: Any) -> Any:  # noqa: ANN401  # a list, or a manager of LangChain's
    if callbacks is None or isinstance(callbacks, list):
        return [*(callbacks or []), *ours]
    callbacks = callbacks.copy()
    for handler in ours:
        callbacks.add_handler(handler)
    return callbacks
