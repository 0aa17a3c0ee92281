"""Desk: what the reporter of one attempt and all its handles share."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runstream.model.times import to_rfc3339
from runstream.runner.text import clean, cut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.runner.mailbox import Mailbox
    from runstream.runner.outbox import Outbox
    from runstream.runner.record import Record

#: The longest text that says why something failed.
LONGEST_ERROR = 4 << 10
#: A secret shorter than this is no secret, and replacing it would garble the text.
_SHORTEST_SECRET = 4


class Desk:
    """Where reports are written: the outbox, the mailbox, the record, the ids and the secrets of one attempt."""

    def __init__(self, outbox: Outbox, mailbox: Mailbox, record: Record, attempt: int, secrets: Iterable[str]) -> None:
        self.outbox = outbox
        self.mailbox = mailbox
        self.record = record
        self._attempt = attempt
        # The longest first: one may be a part of another.
        self._secrets = sorted((text for text in secrets if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._numbers = itertools.count(1)
        self._open: dict[object, asyncio.Task[Any]] = {}

    def begin(self, block: object) -> None:
        """Note the task in which a tool or a sub-agent is at work."""
        task = asyncio.current_task()
        if task is not None:
            self._open[block] = task

    def end(self, block: object) -> None:
        """Forget a block that has been left."""
        self._open.pop(block, None)

    async def stop_open(self, agent: asyncio.Task[None], seconds: float) -> None:
        """Cancel the tasks in which tools and sub-agents are still at work: an agent that has ended works no more.

        Its own task is not one of them. A failed `asyncio.gather` leaves such tasks behind.
        """
        tasks = {task for task in self._open.values() if task is not agent and not task.done()}
        for task in tasks:
            task.cancel()
        if tasks and seconds > 0:
            await asyncio.wait(tasks, timeout=seconds)

    def new_id(self, kind: str) -> str:
        """Return an id that no entry of the execution has, of this attempt or of an earlier one."""
        return f"{kind}-{self._attempt}-{next(self._numbers)}"

    def why(self, error: BaseException) -> str:
        """Return what an error says, for every client to read: short, and without the values of secrets."""
        try:
            text = str(error)
        except Exception:  # noqa: BLE001  # an error of somebody's, which breaks when it is looked at
            text = ""
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return self.told(text)

    def told(self, text: str) -> str:
        """Return a text about a failure, for every client to read: short, and without the values of secrets."""
        return cut(self.redacted(clean(text)), LONGEST_ERROR)

    def redacted(self, text: str) -> str:
        """Return a text without the values of secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def now() -> str:
    """Return the wall time as the API writes it. It marks entries; nothing is decided by it."""
    return to_rfc3339(datetime.now(UTC))
