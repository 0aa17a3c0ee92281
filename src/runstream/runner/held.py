"""Held: the runs that a runner works on."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from runstream.runner.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.runner.run import Run
    from runstream.v1 import runner_pb2
    from runstream.v1.runner_pb2 import Assignment, RunnerCommand

_LOG = logging.getLogger(__name__)


class Held:
    """The runs by execution. Obeys the server's commands; those about what is not held here mean nothing."""

    def __init__(self, begin: Callable[[Assignment], Run]) -> None:
        """Begin runs by `begin`."""
        self._begin = begin
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fewer = Bell()

    def named(self) -> list[runner_pb2.Held]:
        """Return what is held, as the server is told."""
        return [run.held() for run in self._runs.values()]

    def obey(self, command: RunnerCommand) -> None:
        """Do what the server says of one execution. A repeat changes nothing."""
        kind = command.WhichOneof("command")
        if kind == "assign":
            self._take(command.assign)
        elif kind == "cancel" and (run := self._find(command.cancel)):
            run.cancel(command.cancel)
        elif kind == "pause" and (run := self._find(command.pause)):
            run.pause()
        elif kind == "approval" and (run := self._find(command.approval)):
            run.approve(command.approval)
        elif kind == "input" and (run := self._find(command.input)):
            run.tell(command.input)
        elif kind == "lost" and (run := self._find(command.lost)):
            self._lose(run, command.lost.reason)

    async def emptied(self) -> None:
        """Return when nothing is held."""
        while self._runs:
            await self._fewer.wait()

    async def give_back(self, seconds: float) -> None:
        """Stop all runs, and let them report what they have done, for as long as this."""
        for run in self._runs.values():
            run.give_back()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self._runs.clear()
        self._fewer.ring()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _find(
        self,
        about: (
            runner_pb2.CancelCommand
            | runner_pb2.PauseCommand
            | runner_pb2.ApprovalCommand
            | runner_pb2.InputCommand
            | runner_pb2.LostCommand
        ),
    ) -> Run | None:
        run = self._runs.get(about.execution_id)
        return run if run is not None and run.attempt == about.attempt else None

    def _take(self, assignment: Assignment) -> None:
        """Begin a run; one of an earlier attempt at the same execution has been lost."""
        execution_id = assignment.execution.metadata.id
        known = self._runs.get(execution_id)
        if known is not None:
            if known.attempt >= assignment.attempt:
                return
            self._lose(known, "SUPERSEDED")
        try:
            run = self._begin(assignment)
        except Exception:  # noqa: BLE001  # it must not end the runner, which holds others; the server takes it back
            _LOG.exception("%s cannot be begun, attempt %d", execution_id, assignment.attempt)
            return
        self._runs[execution_id] = run
        _LOG.debug("%s begins, attempt %d", execution_id, assignment.attempt)
        task = asyncio.create_task(run.live(), name=f"run {execution_id}")
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(run, task))

    def _lose(self, run: Run, reason: str) -> None:
        run.lose(reason)
        self._drop(run)

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._drop(run)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("the run of %s broke", run.execution_id, exc_info=error)

    def _drop(self, run: Run) -> None:
        if self._runs.get(run.execution_id) is run:
            del self._runs[run.execution_id]
        self._fewer.ring()
