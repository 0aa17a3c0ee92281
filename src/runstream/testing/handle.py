"""Handle: one execution, and what a person can do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.model.phases import is_terminal
from runstream.testing.follow import Follow
from runstream.testing.phases import from_phase, to_phase
from runstream.testing.state import State, waiting_calls
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_APPROVE_ALL,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    EXECUTION_WAITING_FOR_INPUT,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runstream.testing.client import Client
    from runstream.testing.phases import Phase
    from runstream.v1.agent_execution_pb2 import AgentExecution, ApprovalAction, ExecutionChange, ToolCall


class Handle:
    """One execution.

    What waits does so for `within` seconds, or as long as the server was given, and raises `NotReached`, which tells
    where the execution stands. Nothing that happened is missed: `until` looks at every revision since the last that was
    looked at; what the test has done itself (`approve`, `resume`, …) counts as looked at. What the server refuses is
    raised as gRPC's error.
    """

    def __init__(self, client: Client, execution_id: str, timeout: float) -> None:
        """Follow the execution with this id; wait for `timeout` seconds unless told otherwise."""
        self.id = execution_id
        self._client = client
        self._timeout = timeout
        self._follow = Follow(client.queries, execution_id)

    def __repr__(self) -> str:
        return f"Handle({self.id})"

    async def until(
        self,
        what: Phase | int | Callable[[State], bool],
        within: float | None = None,
    ) -> State:
        """Return the state once the execution is in a phase, or once something holds of its state."""
        if callable(what):
            return await self._until(what, getattr(what, "__name__", repr(what)), within)
        phase = from_phase(what)
        return await self._until(lambda state: state.status.phase == phase, to_phase(phase), within)

    async def until_said(self, text: str, within: float | None = None) -> State:
        """Return the state once some message holds this text."""
        return await self._until(lambda state: any(text in said for said in state.texts), f"{text!r}", within)

    async def until_attempt(self, attempt: int, within: float | None = None) -> State:
        """Return the state once this attempt, or a later one, has begun."""
        return await self._until(lambda state: state.attempt >= attempt, f"attempt {attempt}", within)

    async def result(self, within: float | None = None) -> State:
        """Return the state in which the execution has ended, however it did."""
        return await self._until(lambda state: is_terminal(state.status.phase), "its end", within)

    async def state(self) -> State:
        """Return the state now."""
        return State(await self._client.queries.Get(GetAgentExecutionRequest(value=self.id)))

    async def changes(self) -> list[ExecutionChange]:
        """Return the log so far, from the first change."""
        newest = (await self.state()).revision
        changes: list[ExecutionChange] = []
        log = self._client.queries.Watch(WatchAgentExecutionRequest(execution_id=self.id))
        try:
            async for change in log:
                changes.append(change)
                if change.revision >= newest:
                    break
        finally:
            log.cancel()
        return changes

    async def approve(self, tool: str = "", comment: str = "") -> None:
        """Let a tool run: the one that waits, or will wait, for approval; with `tool`, one of this name or id.

        AssertionError when several wait and none is named. The same holds for `skip` and `reject`.
        """
        await self._decide(APPROVAL_APPROVE, tool, comment)

    async def approve_all(self, comment: str = "") -> None:
        """Let the tool that waits run, and whatever else of this execution waits or asks later."""
        await self._decide(APPROVAL_APPROVE_ALL, "", comment)

    async def skip(self, tool: str = "", comment: str = "") -> None:
        """Have the agent go on without the tool."""
        await self._decide(APPROVAL_SKIP, tool, comment)

    async def reject(self, tool: str = "", comment: str = "") -> None:
        """Refuse the tool."""
        await self._decide(APPROVAL_REJECT, tool, comment)

    async def answer(self, text: str) -> None:
        """Say this to the agent as soon as it waits for input."""
        phase = EXECUTION_WAITING_FOR_INPUT
        await self._until(lambda state: state.status.phase == phase, to_phase(phase), None)
        await self._did(self._client.executions.SubmitInput(SubmitInputInput(execution_id=self.id, message=text)))

    async def cancel(self, reason: str = "") -> None:
        """Ask for the end: CANCELLED, as soon as the agent has ended."""
        await self._did(self._client.executions.Cancel(CancelAgentExecutionInput(id=self.id, reason=reason)))

    async def terminate(self, reason: str = "") -> None:
        """End it at once: TERMINATED."""
        await self._did(self._client.executions.Terminate(TerminateAgentExecutionInput(id=self.id, reason=reason)))

    async def pause(self, reason: str = "") -> None:
        """Ask for a halt: PAUSED, as soon as the agent comes to a safe point."""
        await self._did(self._client.executions.Pause(PauseAgentExecutionInput(id=self.id, reason=reason)))

    async def resume(self, reason: str = "") -> None:
        """Let it go on after a pause."""
        await self._did(self._client.executions.Resume(ResumeAgentExecutionInput(id=self.id, reason=reason)))

    async def recover(self, reason: str = "") -> None:
        """Let it go on after it has FAILED."""
        await self._did(self._client.executions.Recover(RecoverAgentExecutionInput(id=self.id, reason=reason)))

    async def _decide(self, action: ApprovalAction.ValueType, tool: str, comment: str) -> None:
        named = f"an approval of {tool!r} to be asked for" if tool else "an approval to be asked for"
        state = await self._until(lambda state: bool(waiting_calls(state.execution, tool)), named, None)
        call = _only(waiting_calls(state.execution, tool), several_do=action == APPROVAL_APPROVE_ALL)
        request = SubmitApprovalInput(agent_execution_id=self.id, tool_call_id=call.id, action=action, comment=comment)
        await self._did(self._client.executions.SubmitApproval(request))

    async def _until(self, holds: Callable[[State], bool], what: str, within: float | None) -> State:
        return await self._follow.until(holds, what, self._timeout if within is None else within)

    async def _did(self, call: Awaitable[AgentExecution]) -> None:
        """Do something, and look at nothing from before it any more."""
        self._follow.passed((await call).metadata.revision)


def _only(calls: list[ToolCall], *, several_do: bool) -> ToolCall:
    if len(calls) > 1 and not several_do:
        raise AssertionError("several tools wait for approval, name one: " + ", ".join(call.id for call in calls))
    return calls[0]
