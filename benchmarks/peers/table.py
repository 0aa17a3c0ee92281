"""The results: one table, with what the peers are beneath it, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers.job import Job
    from benchmarks.peers.machine import Machine
    from benchmarks.peers.peer import Facts
    from benchmarks.peers.program import Answer

_NONE = "—"
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Measured:
    """A peer, and its figures by name; one that could not be had is there as its `reason`."""

    facts: Facts
    machine: Machine
    figures: dict[str, Answer]


def _times(answer: Answer) -> str:
    return f"{answer['p50'] * 1e3:.1f} / {answer['p99'] * 1e3:.1f}"


def _rate(answer: Answer) -> str:
    return f"{answer['per_second']:,.0f}"


def _streamed(answer: Answer) -> str:
    return _rate(answer) if answer["in_time"] else f"{_rate(answer)} ({answer['seen']} in time)"


def _resumed(answer: Answer) -> str:
    if not answer["in_time"]:  # what is missing may still be on its way
        return f"? / {answer['duplicated']} ({answer['seen']} in time)"
    return f"{answer['lost']} / {answer['duplicated']} ({answer['drops']})"


def _ended(answer: Answer) -> str:
    return f"finished, {answer['seconds']:.1f} s" if answer["state"] == "finished" else str(answer["state"])


def _killed(answer: Answer) -> str:
    if answer["state"] != "finished":
        return f"{answer['gone']} of {answer['seen_before']} gone"
    return f"{answer['lost']} / {answer['duplicated']} / {answer['gone']}"


_ROWS: list[tuple[str, str, Callable[[Answer], str]]] = [
    ("start a run, 1 in flight, ms p50 / p99", "create", _times),
    ("start to result, 1 in flight, ms p50 / p99", "single", _times),
    ("  the same within its process", "single within", _times),
    ("trivial runs per second, 64 in flight", "many", _rate),
    ("  the same within its process", "many within", _rate),
    ("streamed events per second, one by one", "stream", _streamed),
    ("  joined by the system itself", "stream joined", _streamed),
    ("reconnects: lost / duplicated (drops)", "resume", _resumed),
    ("kill -9 of the server: the run", "kill server", _ended),
    ("  lost / duplicated / gone from the store", "kill server", _killed),
    ("kill -9 of server and worker: the run", "kill all", _ended),
    ("  lost / duplicated / gone from the store", "kill all", _killed),
]


def cell(figures: dict[str, Answer], name: str, told: Callable[[Answer], str]) -> str:
    """Return what stands in the table: the figure, a dash where there is none, a mark where it was not to be had."""
    answer = figures.get(name)
    if answer is None:
        return _NONE
    return "(see below)" if "reason" in answer else told(answer)


def table(peers: Sequence[Measured]) -> str:
    """Return the table: a row for each figure, a column for each peer that could be started."""
    started = [peer for peer in peers if "reason" not in peer.figures["start"]]
    rows = [["", *(peer.facts.title for peer in started)]]
    rows += [[title, *(cell(peer.figures, name, told) for peer in started)] for title, name, told in _ROWS]
    busy = ["load of the machine / a synced write, ms"]
    rows.append(busy + [f"{peer.machine.load:.1f} / {peer.machine.sync * 1e3:.2f}" for peer in started])
    rows = [rows[0], *(row for row in rows[1:] if any(each != _NONE for each in row[1:]))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        [row[0].ljust(widths[0]), *(each.rjust(width) for each, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return "\n".join(_GAP.join(line).rstrip() for line in lines)


def notes(peers: Sequence[Measured]) -> str:
    """Say what each peer is, how it was run, and why a figure is missing."""
    lines: list[str] = []
    for peer in peers:
        facts = asdict(peer.facts)
        lines.append(f"{facts.pop('title')}: {facts.pop('what')}")
        lines += [f"  {name}: {value}" for name, value in facts.items()]
        lines += [
            f"  no figure for {name}: {each['reason']}" for name, each in peer.figures.items() if "reason" in each
        ]
    return "\n".join(lines)


def as_json(peers: Sequence[Measured], job: Job, conditions: str) -> str:
    """Return all of it, with the job and the machine."""
    told = {
        "conditions": conditions,
        "job": asdict(job) | {"places": job.places()},
        "peers": [asdict(peer) for peer in peers],
    }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
