"""The soak: the whole fault kit for as long as is wanted, round after round, until something does not hold.

`make soak` runs it for an hour. Whatever is drawn comes from the seed and the number of the round, so a violation is
repeated by these two; when exactly each fault strikes depends on the machine as well, so it may take a few repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import resource
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.faults.rounds import Round, draw_round

_ROUND_SECONDS: Final = 30.0
#: How often it says how far it is, to a person and to a log.
_TELL_SECONDS: Final = (10.0, 60.0)
_ENGINES: Final = {"": [""], "both": ["grpcio", "native"]}
#: What counts as a kill, a reconnect or a resume.
_COUNTED: Final = (
    "server kills",
    "runner kills",
    "streams resumed",
    "executions paused and resumed",
    "commands in doubt and repeated",
)


@dataclass(slots=True)
class Soak:
    """A soak under way: what was asked for, and what it has counted."""

    seed: int
    minutes: float
    first_round: int
    engine: str
    rounds: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    #: What did not hold, and where it is kept.
    violation: str = ""
    kept: str = ""
    _begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._begun

    async def run(self) -> None:
        """Run rounds until the time is over or something does not hold."""
        telling = asyncio.create_task(self._tell())
        try:
            while self.seconds < self.minutes * 60 and not self.violation:
                await self._run_round(self.first_round + self.rounds)
                self.rounds += 1
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling

    async def _run_round(self, number: int) -> None:
        random = random_of(self.seed, number)
        engines = _ENGINES.get(self.engine, [self.engine])
        engine = engines[number % len(engines)]
        place = Path(tempfile.mkdtemp(prefix=f"runstream-soak-{number}-"))
        left = max(1.0, min(_ROUND_SECONDS, self.minutes * 60 - self.seconds))
        run = draw_round(random)
        this = Round(place, random, left, self.tally, {"RUNSTREAM_ENGINE": engine} if engine else {})
        try:
            await run(this)
        except Exception:  # noqa: BLE001  # whatever it is, it is told, and the soak ends
            self.violation = f"round {number}, {run.__name__}, {dict(this.environment)}:\n{traceback.format_exc()}"
            self.kept = str(place)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        else:
            shutil.rmtree(place)

    async def _tell(self) -> None:
        """Say how far it is, every now and then."""
        while True:
            await asyncio.sleep(_TELL_SECONDS[0] if sys.stderr.isatty() else _TELL_SECONDS[1])
            counts = ", ".join(f"{self.tally[name]} {name}" for name in _COUNTED)
            print(f"{self.seconds / 60:.1f} min, round {self.rounds + 1}: {counts}", file=sys.stderr, flush=True)

    @property
    def total(self) -> int:
        """How many kills, reconnects and resumes there were in all."""
        return sum(self.tally[name] for name in _COUNTED)

    def plain(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "seed": self.seed,
            "minutes": round(self.seconds / 60, 2),
            "first_round": self.first_round,
            "rounds": self.rounds,
            "engine": self.engine or "default",
            "python": platform.python_version(),
            "system": platform.platform(),
            "counts": dict(sorted(self.tally.items())),
            "kills_reconnects_resumes": self.total,
            "violations": int(bool(self.violation)),
            "violation": self.violation,
            "kept": self.kept,
            "harness_memory_kib": memory,
        }

    def print_table(self) -> None:
        """Print what was counted, and what did not hold."""
        print(f"\nsoak: seed {self.seed}, {self.rounds} rounds in {self.seconds / 60:.1f} minutes\n")
        for name, count in sorted(self.tally.items()):
            print(f"  {name:<36}{count:>10}")
        print(f"\n  {'kills, reconnects and resumes in all':<36}{self.total:>10}")
        if not self.violation:
            print(f"  {'lost, doubled, stuck':<36}{'0, 0, 0':>10}\n")
            return
        number = self.first_round + self.rounds - 1
        print(f"\nVIOLATION in {self.violation}\nThe data folder is kept: {self.kept}")
        engine = f" ENGINE={self.engine}" if self.engine else ""
        print(f"To repeat the round: make soak SEED={self.seed} ROUND={number} MINUTES=1{engine}")


def random_of(seed: int, number: int) -> Random:
    """Return what a round is drawn from."""
    return Random(f"{seed} {number}")


def main() -> None:
    """Soak, print the counts, and end with 1 if something did not hold."""
    options = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--minutes", type=float, default=60, help="how long (default 60)")
    options.add_argument("--seed", type=int, default=None, help="what everything is drawn from (default: drawn, told)")
    options.add_argument("--round", type=int, default=0, help="the round to begin with, to repeat one (default 0)")
    options.add_argument("--engine", choices=["grpcio", "native", "both"], default="", help="engine of the servers")
    options.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the counts there as well")
    given = options.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # sockets that were reset are what this is about
    soak = Soak(seed, given.minutes, given.round, given.engine)
    print(f"soak: seed {seed}, {given.minutes:g} minutes", file=sys.stderr, flush=True)
    try:
        asyncio.run(soak.run())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    soak.print_table()
    if given.json is not None:
        given.json.write_text(json.dumps(soak.plain(), indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if soak.violation else 0)


if __name__ == "__main__":
    main()
