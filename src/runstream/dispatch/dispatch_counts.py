"""Dispatch counts: what has become of leases since the process began."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class DispatchCounts:
    """Kept by the dispatcher, on the event loop."""

    #: Attempts that began.
    assigned: int = 0
    #: Executions that were taken back as if nothing had been done: given back, or never delivered.
    returned: int = 0
    #: Executions that were taken back from a runner that was lost.
    lost: int = 0
    #: Runners whose lease ended while they held something.
    runners_lost: int = 0
