"""The report of a run: a table for people, and everything that was seen as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from benchmarks.figure import Bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.figure import Figure, Measurement, Run
    from benchmarks.machine import Machine

_NAME, _TARGET, _REACHED = 88, 12, 14
_MET: Final = {True: "met", False: "NOT MET", None: ""}


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has measured, by the name of the benchmark, and what it could not, with the reason."""

    machine: Machine
    run: Run
    begun: datetime
    measurements: dict[str, Measurement]
    failures: dict[str, str]

    def table(self) -> str:
        """Return the table: each figure, its target, what was reached, and whether that is enough."""
        return "\n".join(self._lines())

    def json(self) -> str:
        """Return everything: figures, percentiles, rounds, machine, versions, seed and time."""
        told: dict[str, Any] = {
            "begun": self.begun.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(self.machine),
            "engine": self.run.engine,
            "quick": self.run.quick,
            "seed": self.run.seed,
            "benchmarks": {name: _everything(each) for name, each in self.measurements.items()},
            "failures": self.failures,
        }
        return json.dumps(told, indent=1)

    def _lines(self) -> Iterator[str]:
        yield from conditions(self.machine, self.run)
        yield f"\n{'figure':<{_NAME}}{'target':>{_TARGET}}{'reached':>{_REACHED}}"
        for name, measurement in self.measurements.items():
            yield f"\n{name}: {measurement.conditions}"
            yield from (_row(figure) for figure in measurement.figures)
        for name, reason in self.failures.items():
            yield f"\n{name} was not measured: {reason}"
        yield f"\n{self._sum()}"

    def _sum(self) -> str:
        verdicts = [figure.met for each in self.measurements.values() for figure in each.figures]
        told = f"{verdicts.count(True)} targets met, {verdicts.count(False)} not met"
        if self.run.quick:
            told += "; a quick run: smaller sizes, few rounds, no figures to quote"
        return told


def conditions(machine: Machine, run: Run) -> Iterator[str]:
    """Tell what holds for every figure of a run."""
    yield f"machine: {machine.told()}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield f"versions: runstream {machine.revision}, {versions}"
    yield f"server on core {machine.server_cores}, load on {machine.load_cores}, engine {run.engine}; seed {run.seed};"
    yield f"every commit synced; load average {machine.load_average:.1f} before the run"


def _row(figure: Figure) -> str:
    target = "" if figure.target is None else f"{_sign(figure.bound)} {_number(figure.target)} {figure.unit}".rstrip()
    reached = f"{_number(figure.reached)} {figure.unit}".rstrip()
    return f"  {figure.name:<{_NAME - 2}}{target:>{_TARGET}}{reached:>{_REACHED}}  {_MET[figure.met]}".rstrip()


def _sign(bound: Bound) -> str:
    return "≤" if bound is Bound.AT_MOST else "≥"


def _number(value: float) -> str:
    """Return a number with three digits that count, or all that stand before the point."""
    whole = 100.0
    return f"{value:,.0f}" if abs(value) >= whole else f"{value:.3g}"


def _everything(measurement: Measurement) -> dict[str, Any]:
    return {
        "figures": [_figure(figure) for figure in measurement.figures],
        "conditions": measurement.conditions,
        "spreads": {name: asdict(spread) for name, spread in measurement.spreads.items()},
        "seen": measurement.seen,
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return asdict(figure) | {"name": figure.name.strip(), "bound": figure.bound.value, "met": figure.met}
