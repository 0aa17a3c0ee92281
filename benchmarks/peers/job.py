"""The job: what every peer does, one after another, and what is kept of it."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.peers.program import Answer, NotPossible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from benchmarks.peers.peer import Peer

IN_FLIGHT: Final = 64
STREAMED: Final = 2_000
KILLED_AT: Final = 500
_SEED = 5
_WARM = 20


@dataclass(frozen=True, slots=True)
class Job:
    """How much is done. `limit` is in seconds, for each measurement; `patience` for what follows a kill."""

    runs: int = 500
    singles: int = 100
    events: int = STREAMED
    drops: int = 3
    killed_at: int = KILLED_AT
    limit: float = 20.0
    patience: float = 30.0

    def places(self) -> list[int]:
        """Return where the reader drops its connection: random, and the same for every peer."""
        inner = range(self.events // 10, self.events - self.events // 10)
        return sorted(random.Random(_SEED).sample(inner, self.drops))


async def do(job: Job, peer: Peer, folder: Path) -> dict[str, Answer]:
    """Do it with one peer; what cannot be done is kept as its reason. Whatever was started is stopped."""
    figures: dict[str, Answer] = {}
    try:
        peer.install()
        await _keep(figures, "start", peer.start(_new(folder, "first")))
        if "reason" not in figures["start"]:
            await _measure(job, peer, figures)
            await peer.stop()
            for name, workers in (("kill server", False), ("kill all", True)):
                await _keep(figures, name, _killed(job, peer, _new(folder, name.replace(" ", "-")), workers=workers))
    except NotPossible as error:
        figures["start"] = {"reason": str(error)}
    finally:
        await peer.stop()
    return figures


async def _measure(job: Job, peer: Peer, figures: dict[str, Answer]) -> None:
    await _keep(figures, "warm", peer.run(_WARM, 4, job.limit / 2))
    steps: list[tuple[str, Callable[[], Awaitable[Answer | None]]]] = [
        ("create", lambda: peer.create(job.singles, job.limit)),
        ("single", lambda: peer.run(job.singles, 1, job.limit)),
        ("many", lambda: peer.run(job.runs, IN_FLIGHT, job.limit)),
        ("single within", lambda: peer.within(job.singles, 1, job.limit)),
        ("many within", lambda: peer.within(job.runs, IN_FLIGHT, job.limit)),
        ("stream", lambda: peer.stream(job.events, job.limit, joined=False)),
        ("stream joined", lambda: peer.stream(job.events, job.limit, joined=True)),
        ("resume", lambda: peer.resume(job.events, job.places(), job.limit)),
    ]
    for name, step in steps:
        await _keep(figures, name, step())
    del figures["warm"]


async def _killed(job: Job, peer: Peer, folder: Path, *, workers: bool) -> Answer:
    """Kill a peer that was started on a folder of its own."""
    try:
        await peer.start(folder)
        return await peer.kill(2 * job.killed_at, job.killed_at, job.patience, workers=workers)
    finally:
        await peer.stop()


async def _keep(figures: dict[str, Answer], name: str, step: Awaitable[Answer | None]) -> None:
    try:
        answer = await step
    except NotPossible as error:
        figures[name] = {"reason": str(error)}
        return
    if answer is not None or name == "start":
        figures[name] = summed(answer or {})


def summed(answer: Answer) -> Answer:
    """Put what is kept of many times in place of them: how many, the median, the 99th percentile, all per second."""
    kept = dict(answer)
    seconds: Sequence[float] = kept.pop("seconds", None) if isinstance(kept.get("seconds"), list) else []
    if seconds:
        kept |= {"count": len(seconds), "p50": statistics.median(seconds), "p99": percentile(seconds, 99)}
        kept["per_second"] = len(seconds) / kept["elapsed"]
    elif kept.get("elapsed") and "seen" in kept:
        kept["per_second"] = kept["seen"] / kept["elapsed"]
    return kept


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def _new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made
