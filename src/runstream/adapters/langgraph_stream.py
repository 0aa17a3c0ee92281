"""The stream of a LangGraph graph, narrated.

Three of its modes are read. `messages` are what models say, in pieces; `updates` are what nodes have done: whole
messages with their tool calls, results of tools, todos, interrupts; `tasks` are the beginnings and ends of nodes. Every
tool call of a prebuilt agent is a task of its own, and the task's id stands in the namespace of all that is done within
it: so it is known which call a sub-agent works for, though others of its name work beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage

from runstream.adapters.langgraph_calls import Calls
from runstream.runner.errors import BudgetExceeded, ToolNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.adapters.langgraph_calls import Asked
    from runstream.adapters.narration import Narration
    from runstream.runner.context import ExecutionContext

MODES: Final = ("messages", "tasks", "updates")
#: The tool by which deepagents starts a sub-agent.
_DEEP_AGENT: Final = "task"
_INTERRUPT: Final = "__interrupt__"


class Stream:
    """Narrates what one run of a graph streams."""

    def __init__(self, narration: Narration) -> None:
        self._narration = narration
        self._seen: set[str] = set()
        self._spent: dict[str, dict[str, int]] = {}
        self._overspent: BudgetExceeded | None = None
        self.calls = Calls()
        #: What the graph waits for, once it has stopped.
        self.interrupts: list[Any] = []
        #: The last whole message of the agent itself.
        self.last = ""

    async def hear(self, kind: str, path: tuple[str, ...], data: Any) -> None:  # noqa: ANN401  # of a mode each
        """Narrate one thing that is streamed."""
        if kind == "messages":
            message, metadata = data
            await self._say(message, metadata)
        elif kind == "tasks":
            await self._task(path, data)
        elif kind == "updates":
            await self._update(path, data)

    async def go_on(self, messages: Iterable[Any]) -> None:
        """Narrate what models had asked for last in an earlier run of the thread, and what is known of it there."""
        messages = list(messages)
        self._seen.update(str(message.id) for message in messages)
        results = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
        asking = [message for message in messages if isinstance(message, AIMessage)][-1:]
        for call in (call for message in asking for call in message.tool_calls):
            if self._narration.has_ended(call["id"], call["name"], call["args"]):
                self.calls.add(call, "", ended=True)
                continue
            asked = await self._ask(call, "", "")
            if call["id"] in results:
                await self._end(asked, results[call["id"]])

    def context(self, path: Iterable[str], call_id: str) -> ExecutionContext | None:
        """Return the context of a tool call that was told, by where it is made; None for one that was not."""
        path = [segment.rpartition(":")[2] for segment in path]
        call = self.calls.of_task(path[-1]) if path else None
        if call is None or call.id != call_id:
            owners = [task for task in path if self.calls.of_task(task) is not None]
            owner = owners[-1] if owners else ""
            call = next((each for each in self.calls.open if (each.id, each.owner) == (call_id, owner)), None)
        return None if call is None else self._narration.context_of(call.key, call.owner)

    async def _say(self, message: Any, metadata: Mapping[str, Any]) -> None:  # noqa: ANN401  # of any type
        if not isinstance(message, AIMessage):
            return
        owner = await self._owner(str(metadata.get("langgraph_checkpoint_ns", "")).split("|"), metadata)
        for kind, text in _texts(message):
            await self._narration.text(text, message=str(message.id), owner=owner, kind=kind)
        whole = not isinstance(message, AIMessageChunk) and "ls_model_type" in metadata
        if message.usage_metadata or whole or getattr(message, "chunk_position", None) == "last":
            await self._spend(message, metadata, owner)

    async def _spend(self, message: Any, metadata: Mapping[str, Any], owner: str) -> None:  # noqa: ANN401  # as above
        usage = message.usage_metadata or {}
        spent = self._spent.setdefault(str(message.id), {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0})
        spent["input_tokens"] += usage.get("input_tokens", 0)
        spent["output_tokens"] += usage.get("output_tokens", 0)
        spent["cached_tokens"] += usage.get("input_token_details", {}).get("cache_read", 0)
        model = message.response_metadata.get("model_name") or metadata.get("ls_model_name") or ""
        try:
            await self._narration.usage(str(message.id), model=model, owner=owner, **spent)
        except BudgetExceeded as error:  # raised when the model has ended: what is half said helps nobody
            self._overspent = error

    async def _task(self, path: tuple[str, ...], task: Mapping[str, Any]) -> None:
        """Narrate the beginning of a tool, after an interrupt its second one, or how it ends the run."""
        if "input" in task:
            call = _call_of(task["input"])
            if call is not None:
                await self._begin(task["id"], call, await self._owner(path))
            return
        known = self.calls.of_task(task["id"])
        if known is None:
            return
        if isinstance(task.get("error"), Exception):
            if known.agent:
                await self._narration.sub_agent_ended(known.agent, error=task["error"])
            await self._narration.tool_ended(known.key, owner=known.owner, error=task["error"])
        elif known.open:  # of several calls with one id
            for message in (each for change in _changes(task.get("result")) for each in _messages(change)):
                if isinstance(message, ToolMessage) and message.tool_call_id == known.id:
                    await self._end(known, message)

    async def _begin(self, task: str, call: Mapping[str, Any], owner: str) -> None:
        known = self.calls.begun(task, call, owner)
        if known is None:
            known = await self._ask(call, owner, "")
            self.calls.carried_out(task, known)
        if known.refused or not known.open:  # what has ended comes again when the graph goes on after an interrupt
            return
        await self._narration.tool_running(known.key, owner=owner)
        if known.name == _DEEP_AGENT and "subagent_type" in known.args:
            await self._enlist(known, {})

    async def _update(self, path: tuple[str, ...], update: Mapping[str, Any]) -> None:
        if self._overspent is not None:
            raise self._overspent
        if _INTERRUPT in update:
            if not path:  # it comes again at every level above
                self.interrupts.extend(update[_INTERRUPT])
            return
        owner = await self._owner(path)
        for change in (change for changes in update.values() for change in _changes(changes)):
            if isinstance(change.get("todos"), list):
                await self._narration.todos(_todos(change["todos"]), owner=owner)
            for message in _messages(change):
                await self._whole(message, owner)

    async def _whole(self, message: Any, owner: str) -> None:  # noqa: ANN401  # of two types
        if isinstance(message, ToolMessage):
            await self._result(message, owner)
        elif str(message.id) not in self._seen:
            self._seen.add(str(message.id))
            for call in message.tool_calls:
                await self._ask(call, owner, str(message.id))
            for call in message.invalid_tool_calls:
                await self._garbled(call, owner, str(message.id))
            if not owner:
                self.last = message.text

    async def _ask(self, call: Mapping[str, Any], owner: str, message: str) -> Asked:
        asked = self.calls.add(call, owner)
        try:
            await self._narration.tool_asked(asked.key, asked.name, asked.args, owner=owner, message=message)
        except ToolNotAllowed:  # the guard keeps it from running, and tells the model
            asked.refused = True
        return asked

    async def _garbled(self, call: Mapping[str, Any], owner: str, message: str) -> None:
        """Narrate a call whose arguments are no JSON: nobody carries it out."""
        call_id = str(call["id"])
        await self._narration.tool_asked(call_id, call["name"] or "", call["args"] or "", owner=owner, message=message)
        why = call["error"] or "The arguments are no JSON."
        await self._narration.tool_ended(call_id, owner=owner, error=why, reason="TOOL_ARGUMENTS_INVALID")

    async def _result(self, message: Any, owner: str) -> None:  # noqa: ANN401  # a ToolMessage
        call = self.calls.answered(str(message.tool_call_id), owner)
        if call is not None:
            await self._end(call, message)

    async def _end(self, call: Asked, message: Any) -> None:  # noqa: ANN401  # a ToolMessage
        failed = message.status == "error"
        result = message.content if isinstance(message.content, str) else message.text or message.content
        error = (str(result) or "The tool has failed.") if failed else ""
        if call.refused and not failed:
            raise ToolNotAllowed(call.name)  # by a node of somebody's, which no guard sees
        call.open = False
        if call.agent:
            await self._narration.sub_agent_ended(call.agent, output=result, error=error)
        await self._narration.tool_ended(call.key, owner=call.owner, result=result, error=error)

    async def _owner(self, path: Iterable[str], metadata: Mapping[str, Any] | None = None) -> str:
        """Return the task within which something is done, by its namespace; whoever does it is a sub-agent."""
        found = ""
        for segment in path:
            task = segment.rpartition(":")[2]
            call = self.calls.of_task(task)
            if call is not None:
                found = task
                await self._enlist(call, metadata or {})
        return found

    async def _enlist(self, call: Asked, metadata: Mapping[str, Any]) -> None:
        """Narrate, once, that a sub-agent does a call."""
        if call.agent or call.refused:
            return
        call.agent = call.task
        name = call.args.get("subagent_type") or metadata.get("lc_agent_name") or call.name
        what = call.args.get("description", call.args)
        if len(call.args) == 1:
            (what,) = call.args.values()
        await self._narration.sub_agent(call.key, str(name), what, owner=call.owner, key=call.task)


def _call_of(given: Any) -> Mapping[str, Any] | None:  # noqa: ANN401  # whatever a node is given
    """Return the tool call that a task is about; None if it is about anything else."""
    if isinstance(given, Mapping) and given.get("__type") == "tool_call_with_context":
        given = given["tool_call"]
    elif isinstance(given, list) and len(given) == 1:
        (given,) = given
    return given if isinstance(given, Mapping) and given.get("type") == "tool_call" else None


def _changes(changes: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401  # whatever a node returns
    """Return the changes of a node: one, or several if it has returned several commands."""
    for change in changes if isinstance(changes, list | tuple) else [changes]:
        if isinstance(change, Mapping):
            yield change


def _messages(change: Mapping[str, Any]) -> Iterator[Any]:
    """Return the messages in a change, under whichever key."""
    for value in change.values():
        value = getattr(value, "value", value)  # noqa: PLW2901  # of an `Overwrite`
        for message in value if isinstance(value, list | tuple) else [value]:
            if isinstance(message, AIMessage | ToolMessage):
                yield message


def _todos(todos: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for todo in todos:
        if isinstance(todo, Mapping):
            yield str(todo.get("content", "")), str(todo.get("status", ""))


def _texts(message: Any) -> Iterator[tuple[Any, str]]:  # noqa: ANN401  # an AIMessage, or a piece of one
    """Return what a message says, and what it thinks."""
    if isinstance(message.content, str) and not message.additional_kwargs:
        yield "ai", message.content
        return
    for block in message.content_blocks:
        if block["type"] == "text":
            yield "ai", block.get("text", "")
        elif block["type"] == "reasoning":
            yield "thinking", block.get("reasoning", "")
