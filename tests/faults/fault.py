"""A fault: something bad that is done to a running system at some moment, and undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.faults.system import System


class Fault(Protocol):
    """One kind of fault; whatever is left open in it, the system's own randomness decides."""

    async def strike(self, system: System) -> None:
        """Do it, count it, and undo it; the system may still be busy with it on return."""
        ...
