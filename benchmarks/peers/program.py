"""Program: a process of its own, on a core of its own; some answer a line of JSON with a line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Answer = dict[str, Any]

_STOP_SECONDS = 15.0
_LONGEST_LINE = 1 << 24
_TOLD_CHARACTERS = 400


class NotPossible(Exception):
    """Why a peer, or one figure of it, cannot be measured here, in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start, and how. `cores` pins it; `user` is whom it runs as, where we may choose."""

    name: str
    line: Sequence[str]
    cores: set[int]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    user: str | None = None
    stopped_by: signal.Signals = signal.SIGTERM


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """Let what is started inside begin on these cores, so that all it starts in turn stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Program:
    """A running process, the first of a session of its own, so that whatever it starts ends with it."""

    def __init__(self, command: Command, process: Process, log: Path) -> None:
        self.command = command
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, command: Command, logs: Path) -> Program:
        """Start it; what it says on standard error goes to a file in `logs`."""
        log = logs / f"{command.name}.log"
        with log.open("ab") as errors, _pinned(command.cores):
            process = await create_subprocess_exec(
                *command.line,
                stdin=PIPE,
                stdout=PIPE if _talks(command) else DEVNULL,
                stderr=errors,
                env=_environment(command),
                cwd=command.folder,
                start_new_session=True,
                limit=_LONGEST_LINE,
                user=command.user,
                group=command.user,
                extra_groups=[] if command.user else None,
            )
        return cls(command, process, log)

    async def ask(self, what: str, patience: float, **given: object) -> Answer:
        """Ask for something; raise `NotPossible` when it is refused, or not answered in time."""
        writer, reader = self._process.stdin, self._process.stdout
        if writer is None or reader is None:
            raise NotPossible(f"{self.command.name} does not answer questions")
        writer.write(json.dumps({"do": what, **given}).encode() + b"\n")
        try:
            async with asyncio.timeout(patience):
                line = await reader.readline()
        except TimeoutError:
            raise NotPossible(f"{what} was not done in {patience:g} s") from None
        if not line:
            raise NotPossible(f"{self.command.name} ended: {self.last_words()}")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise NotPossible(f"{what}: {answer['error'][:_TOLD_CHARACTERS]}")
        return answer

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def kill(self) -> None:
        """End it with SIGKILL, and all that it has started."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        """End it gracefully, and by SIGKILL if that takes too long."""
        if self.running:
            with suppress(ProcessLookupError):
                self._process.send_signal(self.command.stopped_by)
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._process.wait()
        await self.kill()

    def last_words(self) -> str:
        """The last thing it has said."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:_TOLD_CHARACTERS] if lines else "it said nothing"

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended with all that it started
            os.killpg(self._process.pid, number)


def _talks(command: Command) -> bool:
    return "PEER_TALKS" in command.environment


def _environment(command: Command) -> dict[str, str]:
    # What the shell has set for a server of its own is not for these.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RUNSTREAM_", "PEER_"))}
    return kept | dict(command.environment)
