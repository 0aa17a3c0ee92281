"""Invocation: everything that an agent is given."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from runstream.model.times import to_seconds
from runstream.runner.reporter import Reporter
from runstream.v1.agent_execution_pb2 import AgentExecution

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runstream.runner.desk import Desk
    from runstream.v1.agent_execution_pb2 import AgentMessage
    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.runner_pb2 import Assignment
    from runstream.v1.session_pb2 import Session

T = TypeVar("T")


class Environment(dict[str, str]):
    """The variables of one run, secrets included. Its repr names them and tells no value."""

    def __repr__(self) -> str:
        return f"Environment({', '.join(sorted(self))})"


class Invocation:
    """One attempt at an execution. Nothing in it is shared with another."""

    def __init__(self, assignment: Assignment, desk: Desk, loop: asyncio.AbstractEventLoop) -> None:
        """Take what the server has assigned, and the desk to report at."""
        self._assignment = assignment
        self._desk = desk
        self._loop = loop
        self._began = loop.time()
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._stopped = threading.Event()
        self._env = Environment({name: value.value for name, value in assignment.execution.spec.runtime_env.items()})
        self._execution = without_secrets(assignment.execution)
        self._report = Reporter(desk)

    def __repr__(self) -> str:
        return f"Invocation({self._execution.metadata.id}, attempt={self.attempt})"

    @property
    def message(self) -> str:
        """What the agent is to do."""
        return self._execution.spec.message

    @property
    def execution(self) -> AgentExecution:
        """The execution as it was assigned, without the values of secrets; its status is what it resumes from."""
        return self._execution

    @property
    def agent(self) -> Agent:
        """The agent as the server has it: instructions, runtime, tools."""
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
        """What was said in the session's earlier executions, oldest first."""
        return tuple(self._assignment.history)

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._assignment.attempt

    @property
    def resumed(self) -> bool:
        """Whether to continue from what `execution.status` holds."""
        return self._assignment.resume_from

    @property
    def env(self) -> Environment:
        """The variables of this run by name, secrets included."""
        return self._env

    @property
    def report(self) -> Reporter:
        """Tells what the agent does."""
        return self._report

    def remaining(self) -> float | None:
        """Return how many seconds are left until the deadline, 0 when it is over; None when there is none."""
        if not self._assignment.HasField("remaining"):
            return None
        given = to_seconds(self._assignment.remaining)
        return max(0.0, given - (self._loop.time() - self._began))

    async def safe_point(self) -> None:
        """Let the agent be paused here: it ends, and is invoked anew, `resumed`, when somebody resumes it.

        Raises `Paused`, which is to be let pass. Also lets others work, so that a long calculation can be cancelled.
        """
        await asyncio.sleep(0)
        self._desk.mailbox.check_pause()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the runner's loop, wait for it in this thread, and return what it returns.

        For plain functions, which run in a thread of their own: `invocation.wait(invocation.report.text("…"))`. Raises
        `asyncio.CancelledError` once the agent has been stopped.
        """
        if self._stopped.is_set() or _runs_here(self._loop):
            work.close()
            if self._stopped.is_set():
                raise asyncio.CancelledError
            raise RuntimeError("wait is for plain functions in their thread; here, await")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting.add(future)
        if self._stopped.is_set():  # meanwhile
            future.cancel()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError from None
        finally:
            self._waiting.discard(future)

    def stop_waiting(self) -> None:
        """End every `wait`, now and from now on: the runner has stopped the agent."""
        self._stopped.set()
        for future in tuple(self._waiting):
            future.cancel()


def without_secrets(execution: AgentExecution) -> AgentExecution:
    """Return a copy whose secret variables have no value, as in every answer of the server."""
    copy = AgentExecution()
    copy.CopyFrom(execution)
    for value in copy.spec.runtime_env.values():
        if value.is_secret:
            value.ClearField("value")
    return copy


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
