"""Runs the benchmarks, and tells what was reached beside what is to be reached. `make bench ARGS="--help"`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import (
    chores,
    context,
    create,
    dispatch,
    flat_cost,
    lists,
    memory,
    recovery,
    start_up,
    update_status,
    viewers,
)
from benchmarks.figure import Run
from benchmarks.machine import cores, describe
from benchmarks.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.figure import Measurement

BENCHMARKS: Final[dict[str, Callable[[Run], Measurement]]] = {
    "update_status": update_status.measure,
    "flat_cost": flat_cost.measure,
    "create": create.measure,
    "viewers": viewers.measure,
    "lists": lists.measure,
    "memory": memory.measure,
    "start_up": start_up.measure,
    "chores": chores.measure,
    "dispatch": dispatch.measure,
    "recovery": recovery.measure,
    "context": context.measure,
}
_KEPT: Final = Path(__file__).parent.parent / "build" / "benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 1 when something could not be measured. A target that is missed is no error."""
    given = _options().parse_args(arguments)
    if given.engine == "native" and find_spec("pygrpc_native") is None:
        print("error: --engine native needs the package pygrpc-native", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, cores()[1])
    with tempfile.TemporaryDirectory(prefix="runstream-bench-") as scratch:
        run = Run(given.engine, given.quick, given.seed, Path(scratch), given.folder)
        report = _measure(run, given.only or list(BENCHMARKS))
    print(report.table())
    if given.json:
        given.json.write_text(report.json() + "\n")
    return 1 if report.failures else 0


def _measure(run: Run, wanted: Sequence[str]) -> Report:
    report = Report(describe(), run, datetime.now(UTC), {}, {})
    for name in wanted:
        begun = time.monotonic()
        print(f"measuring {name} … ", end="", file=sys.stderr, flush=True)
        try:
            report.measurements[name] = BENCHMARKS[name](run)
        except Exception as error:  # noqa: BLE001  # the others are measured nevertheless, and the report says so
            report.failures[name] = f"{type(error).__name__}: {error}"
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    return report


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    options.add_argument("--quick", action="store_true", help="smaller sizes and few rounds: a few minutes in all")
    options.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}"
    )
    options.add_argument(
        "--engine", choices=["grpcio", "native"], default="grpcio", help="what serves gRPC (default grpcio)"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write everything that was seen to a file")
    options.add_argument(
        "--folder",
        type=Path,
        default=_KEPT,
        help="where the folders of many executions are kept from run to run (default build/benchmarks)",
    )
    options.add_argument("--seed", type=int, default=5, help="what made-up data is made from (default 5)")
    return options


if __name__ == "__main__":
    sys.exit(main())
