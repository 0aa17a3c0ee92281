"""Delegation: an execution that another agent makes of a part of this one's work, followed to its end.

The tool call that asks for it has an id made of what is asked, so an attempt that resumes, and asks the same again,
goes on with the execution that an earlier one has made, instead of making a second one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets as randomness
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from runstream.model.phases import is_terminal, phase_name
from runstream.runner.context.value import narrowed, thawed
from runstream.runner.count import Count
from runstream.runner.errors import AgentFailure, DelegationFailed, Paused
from runstream.runner.refusals import Refusal
from runstream.runner.tracing import current_traceparent
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    MESSAGE_AI,
    AgentExecution,
    ExecutionValue,
)

if TYPE_CHECKING:
    from runstream.runner.context.limits import Order
    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.desk import Desk
    from runstream.runner.executions import Executions
    from runstream.v1.agent_execution_pb2 import AgentExecutionSpec

#: The tool that a delegation is reported as.
TOOL: Final = "delegate"
_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Delegated:
    """What an execution that was delegated has come to: it has completed."""

    execution_id: str
    #: The last thing that its agent said.
    answer: str
    #: The whole of it.
    execution: AgentExecution

    def __str__(self) -> str:
        return self.answer


class Delegation:
    """One part of an agent's work, given to another agent."""

    def __init__(self, desk: Desk, executions: Executions, context: ExecutionContext, agent: str, message: str) -> None:
        """Have `agent` do `message` for the execution of `context`."""
        self._desk = desk
        self._executions = executions
        self._context = context
        self._agent = agent
        self._message = message

    async def result(self, order: Order) -> Delegated:
        """Make the execution, or find the one made before; follow it to its end. Raises DelegationFailed."""
        call_id = self._desk.own_call_id(order.id) if order.id else self._desk.ordinal(self._name(order))
        variables = self._variables(order)
        child = narrowed(self._context, order.limits, call_id, below=True)
        args = {"agent": self._agent, "message": self._message}
        tool = self._context.report.tool(TOOL, args, id=call_id)
        tool.needs_leave = False  # the budget's depth says whether an agent may delegate
        async with tool as call:
            try:
                request = await self._request(child, order.session, variables)
                known = await self._known(call_id, request.spec)
                making = asyncio.create_task(self._made(known, request, call_id))
                making.add_done_callback(lambda task: task.cancelled() or task.exception())  # maybe nobody else looks
                with self._desk.waiting():
                    found = await self._followed(making)
            except Refusal as refused:
                raise AgentFailure(refused.reason or refused.code.name, refused.message) from refused
            call.result = found.answer
        return found

    def _name(self, order: Order) -> str:
        """Return the beginning of an id for the call: the same for the same wish, and for no other."""
        limits = order.limits
        tools = None if limits.allowed_tools is None else sorted(limits.allowed_tools)
        asked = (limits.max_duration, limits.budget, limits.thoroughness, tools, limits.language)
        attributes = json.dumps(thawed(limits.attributes), sort_keys=True)
        wish = (repr(asked), attributes, order.session or "", repr(sorted(order.env.items())), repr(order.secrets))
        return f"{TOOL}-{_digest(self._agent, self._message, *wish)}"

    def _variables(self, order: Order) -> dict[str, ExecutionValue]:
        variables = {name: ExecutionValue(value=value) for name, value in order.env.items()}
        for name in order.secrets:
            variables[name] = ExecutionValue(value=self._context.secret(name), is_secret=True)
        return variables

    async def _request(
        self, child: ExecutionContext, session: str | None, variables: dict[str, ExecutionValue]
    ) -> AgentExecution:
        """Return the execution to be made in the tree of this one; the server keeps it within the same limits."""
        context = self._context
        request = AgentExecution()
        request.metadata.org = context.org
        spec = request.spec
        spec.agent_id = await self._executions.agent_id(self._agent, context.org)
        spec.message, spec.session_id = self._message, session or ""
        for name, variable in variables.items():
            spec.runtime_env[name].CopyFrom(variable)
        spec.context.CopyFrom(child.to_wire())
        spec.context.traceparent = current_traceparent() or context.traceparent
        spec.context.stateless = session is None
        spec.context.ClearField("root_execution_id")
        spec.context.budget.CopyFrom(child.left().to_wire())
        spec.context.parent_attempt = context.attempt
        return request

    async def _known(self, call_id: str, spec: AgentExecutionSpec) -> str | None:
        """Return the execution that an earlier attempt has made for this call, if it is what is wanted now.

        Anybody can say of an execution that it is one of this call's, so it is looked at.
        """
        known = self._desk.record.delegated(call_id)
        if known is None:
            return None
        found = (await self._executions.get(known)).spec
        return known if (found.agent_id, found.message) == (spec.agent_id, spec.message) else None

    async def _made(self, known: str | None, request: AgentExecution, call_id: str) -> str:
        if known is not None:
            return known
        context = self._context
        key = _digest(context.execution or randomness.token_hex(), str(context.attempt), call_id)
        return await self._executions.create(request, f"{TOOL}-{key}")

    async def _followed(self, making: asyncio.Task[str]) -> Delegated:
        """Follow an execution to its end; whatever keeps this from going on cancels it, unless it shall be found again.

        That is so when the agent is paused, and when its run is stopped as a whole: then the server sees to it.
        """
        following = asyncio.create_task(self._follow(making))
        paused = asyncio.create_task(self._desk.mailbox.paused())
        try:
            await asyncio.wait((following, paused), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                paused.result()
            return following.result()
        except (Paused, DelegationFailed):
            raise
        except BaseException:
            if not self._desk.mailbox.stopping:
                self._executions.cancel(making, "The agent that had asked for it goes on without it.")
            raise
        finally:
            following.cancel()
            paused.cancel()
            await asyncio.gather(following, paused, return_exceptions=True)

    async def _follow(self, making: asyncio.Task[str]) -> Delegated:
        execution_id = await asyncio.shield(making)  # what is being made is known in the end, and cancelled then
        counted = Count(self._desk, self._executions, self._context.ledger)
        ended, revision = AgentExecution(), 0
        try:
            while not is_terminal(ended.status.phase):  # it may be recovered before it is looked at
                async with aclosing(self._executions.changes(execution_id, revision)) as changes:
                    async for change in changes:
                        counted.take(execution_id, change.status)
                        revision = change.revision
                ended = await self._executions.get(execution_id)
        except Refusal as refused:
            if refused.code is not grpc.StatusCode.NOT_FOUND:
                raise
            raise DelegationFailed(execution_id, "deleted", refused.reason, refused.message) from refused
        await counted.take_below(ended)
        status = ended.status
        if status.phase != EXECUTION_COMPLETED:
            raise DelegationFailed(execution_id, _word(status.phase), status.reason, status.error)
        return Delegated(execution_id, _answer(ended), ended)


def _word(phase: int) -> str:
    return phase_name(phase).removeprefix("EXECUTION_").lower()


def _answer(execution: AgentExecution) -> str:
    """Return the last thing the agent itself said."""
    said = (each for each in reversed(execution.status.messages) if each.type == MESSAGE_AI and not each.owner_id)
    return next((message.content for message in said if message.content), "")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
