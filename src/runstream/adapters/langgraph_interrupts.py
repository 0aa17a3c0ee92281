"""The interrupts of a LangGraph run: what it asks of people, as approvals and as input.

What LangChain's `HumanInTheLoopMiddleware` asks about tool calls becomes approvals of these calls. Anything else that a
graph is interrupted for is asked for as input, and what a person says is what `interrupt` returns.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from runstream.runner.json_safe import to_text

if TYPE_CHECKING:
    from runstream.adapters.langgraph_calls import Asked
    from runstream.adapters.langgraph_stream import Stream
    from runstream.adapters.narration import Narration
    from runstream.runner import Decision, Invocation

_DIGITS: Final = 16


class Interrupts:
    """Answers what a graph has stopped for."""

    def __init__(self, invocation: Invocation, narration: Narration, stream: Stream) -> None:
        self._invocation = invocation
        self._narration = narration
        self._stream = stream
        self._asked: dict[str, int] = {}
        #: The calls that are being asked about.
        self._taken: list[Asked] = []

    async def answers(self) -> dict[str, Any]:
        """Ask all at once, and return what the graph goes on with, by the ids of its interrupts. Raises `Paused`."""
        found, self._stream.interrupts = self._stream.interrupts, []
        self._taken = []
        async with asyncio.TaskGroup() as group:
            asking = {interrupt.id: group.create_task(self._answer(interrupt.value)) for interrupt in found}
        return {interrupt: task.result() for interrupt, task in asking.items()}

    async def _answer(self, value: Any) -> Any:  # noqa: ANN401  # whatever a graph is interrupted with, and for
        if isinstance(value, Mapping) and isinstance(value.get("action_requests"), list):
            return {"decisions": await self._decisions(value)}
        if isinstance(value, Mapping) and value.get("type") == "tool_approval":
            call = self._call(value["name"], value["args"], str(value.get("tool_call_id", "")))
            return _decision(await self._approval(call), [])
        return await self._input(_prompt(value))

    async def _decisions(self, request: Mapping[str, Any]) -> list[dict[str, str]]:
        """Ask about several calls; the decisions are in the order of the request."""
        allowed = {config["action_name"]: config["allowed_decisions"] for config in request.get("review_configs", [])}
        calls = [self._call(action["name"], action["args"]) for action in request["action_requests"]]
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._approval(call)) for call in calls]
        return [_decision(task.result(), allowed.get(call.name, [])) for task, call in zip(asking, calls, strict=True)]

    def _call(self, name: str, args: Mapping[str, Any], call_id: str = "") -> Asked:
        """Return the open call that a request is about: most say what is to be called, not which call that is."""
        for call in self._stream.calls.open:
            same = call.id == call_id if call_id else (call.name, call.args) == (name, args)
            if same and not any(call is taken for taken in self._taken):
                break
        else:
            given = {"id": call_id or f"asked-{len(self._taken) + 1}", "name": name, "args": args}
            call = self._stream.calls.add(given, "")
        self._taken.append(call)
        return call

    async def _approval(self, call: Asked) -> Decision:
        # One of a sub-agent that an earlier attempt has begun is not known yet; one that is known stays as it is.
        await self._narration.tool_asked(call.key, call.name, call.args, owner=call.owner)
        return await self._narration.approval(call.key, owner=call.owner)

    async def _input(self, prompt: str) -> str:
        """Ask for input, by an id that the same question has in another attempt."""
        digits = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
        number = self._asked[digits] = self._asked.get(digits, 0) + 1
        return await self._invocation.report.needs_input(prompt, id=f"input-{digits}-{number}")


def _decision(decision: Decision, allowed: list[str]) -> dict[str, str]:
    """Return a decision as the middleware takes it."""
    if decision.approved:
        return {"type": "approve"}
    told = decision.comment or ("Go on without it." if decision.action == "skip" else "")
    kind = "respond" if allowed and "reject" not in allowed and "respond" in allowed else "reject"
    return {"type": kind, "message": told} if told or kind == "respond" else {"type": kind}


def _prompt(value: Any) -> str:  # noqa: ANN401  # whatever a graph is interrupted with
    if isinstance(value, Mapping):
        for name in ("question", "prompt", "message"):
            if isinstance(value.get(name), str):
                return str(value[name])
    return to_text(value)
