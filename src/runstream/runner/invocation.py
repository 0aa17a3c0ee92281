"""Invocation: everything that an agent is given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from runstream.runner.bridge import Bridge
    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.mailbox import Mailbox
    from runstream.runner.reporter import Reporter
    from runstream.v1.agent_execution_pb2 import AgentExecution, AgentMessage
    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.runner_pb2 import Assignment
    from runstream.v1.session_pb2 import Session

T = TypeVar("T")


class Environment(dict[str, str]):
    """The variables of one run, secrets included. Its repr names them and tells no value; after the run it is empty."""

    def __repr__(self) -> str:
        return f"Environment({', '.join(sorted(self))})"


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What all invocations of one run share: the run's own, and those of the sub-agents within it."""

    #: Without the values of its variables.
    assignment: Assignment
    env: Environment
    mailbox: Mailbox
    bridge: Bridge


class Invocation:
    """One call of an agent: for an attempt at an execution, or as a sub-agent within one. Nobody else has it."""

    def __init__(
        self,
        setting: Setting,
        context: ExecutionContext,
        message: str,
        *,
        history: Iterable[AgentMessage] = (),
        resumed: bool = False,
    ) -> None:
        """Take the run's setting, the call's own context, what the agent is to do, and what was said before."""
        self._setting = setting
        self._assignment = setting.assignment
        self._context = context
        self._message = message
        self._history = tuple(history)
        self._resumed = resumed

    def __repr__(self) -> str:
        return f"Invocation({self._assignment.execution.metadata.id}, attempt={self.attempt})"

    @property
    def context(self) -> ExecutionContext:
        """What this invocation is, for whom, and what it may do: pass it on to whatever works for it."""
        return self._context

    @property
    def message(self) -> str:
        """What the agent is to do."""
        return self._message

    @property
    def execution(self) -> AgentExecution:
        """The execution as it was assigned, without the values of secrets; its status is what it resumes from."""
        return self._assignment.execution

    @property
    def agent(self) -> Agent:
        """The agent of the execution as the server has it: instructions, runtime, tools."""
        return self._assignment.agent

    @property
    def instance(self) -> AgentInstance:
        """The agent's instance; empty when it runs outside of any session."""
        return self._assignment.instance

    @property
    def session(self) -> Session:
        """The session; empty when it runs outside of any."""
        return self._assignment.session

    @property
    def history(self) -> tuple[AgentMessage, ...]:
        """What was said in the session's earlier executions, oldest first; to a sub-agent, nothing was."""
        return self._history

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._assignment.attempt

    @property
    def resumed(self) -> bool:
        """Whether to continue from what `execution.status` holds."""
        return self._resumed

    @property
    def env(self) -> Environment:
        """The variables of this run by name, secrets included."""
        return self._setting.env

    @property
    def report(self) -> Reporter:
        """Tells what the agent does."""
        return self._context.report

    def remaining(self) -> float | None:
        """Return how many seconds are left until the deadline, 0 when it is over; None when there is none."""
        return self._context.remaining()

    async def safe_point(self) -> None:
        """Let the agent be paused here: it ends, and is invoked anew, `resumed`, when somebody resumes it.

        Raises `Paused`, which is to be let pass. Also lets others work, so that a long calculation can be cancelled.
        """
        await asyncio.sleep(0)
        self._setting.mailbox.check_pause()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the runner's loop, wait for it in this thread, and return what it returns.

        For plain functions, which run in a thread of their own: `invocation.wait(invocation.report.text("…"))`. Raises
        `asyncio.CancelledError` once the agent has been stopped.
        """
        return self._setting.bridge.wait(work)

    async def in_thread(self, body: Any, *arguments: object) -> Any:  # noqa: ANN401  # any function, whatever it returns
        """Call a function that blocks, in a thread of its own; in it, `wait` and `current_context` work."""
        return await self._setting.bridge.in_thread(body, *arguments)
