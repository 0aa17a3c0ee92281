"""Desk: what the reporter of one attempt and all its handles share."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runstream.model.times import to_rfc3339
from runstream.runner.text import clean, cut
from runstream.v1.agent_execution_pb2 import TOOL_CALL_COMPLETED, TOOL_CALL_RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runstream.runner.context.secrets import Secrets
    from runstream.runner.mailbox import Mailbox
    from runstream.runner.outlet import Outlet
    from runstream.runner.record import Record
    from runstream.v1.agent_execution_pb2 import ToolCall, Usage

#: The longest text that says why something failed.
LONGEST_ERROR = 4 << 10


class Desk:
    """Where reports are written: the outbox, the mailbox, the record, the ids and the secrets of one attempt."""

    def __init__(self, outbox: Outlet, mailbox: Mailbox, record: Record, attempt: int, secrets: Secrets) -> None:
        self.outbox = outbox
        self.mailbox = mailbox
        self.record = record
        self._attempt = attempt
        self._secrets = secrets
        self._numbers = itertools.count(1)
        self._open: dict[object, asyncio.Task[Any]] = {}
        #: What was told to be spent: by the execution if it is another one, by owner and id of the usage.
        self._spent: dict[tuple[str, str, str], dict[str, int]] = {}
        #: The tool calls that have run in other executions, and those of this one that earlier attempts have made.
        self._ran: set[tuple[str, str]] = set()
        self._repeated: set[str] = set()
        self._ordinals: dict[str, int] = {}
        self._wanted: dict[str, int] = {}
        #: How many executions are waited for, and who is told when it changes.
        self.delegating = 0
        self.on_waiting: Callable[[], None] = _nobody
        for usage in record.usage:
            self.spent_more(usage)

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

    def own_call_id(self, wanted: str) -> str:
        """Return an id for a call that a model calls `wanted`: that, or one like it if this attempt has used it.

        Some models repeat their ids. Another attempt that makes the same calls in the same order gets the same ids.
        """
        if not wanted:
            return self.new_id("call")
        number = self._wanted[wanted] = self._wanted.get(wanted, 0) + 1
        return wanted if number == 1 else f"{wanted}-{number}"

    def ordinal(self, text: str) -> str:
        """Return an id that begins with `text`, and is the same in another attempt that asks for the same in order."""
        number = self._ordinals[text] = self._ordinals.get(text, 0) + 1
        return f"{text}-{number}"

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count as one that waits for another execution, for the length of the block: the run may take no place."""
        self.delegating += 1
        self.on_waiting()
        try:
            yield
        finally:
            self.delegating -= 1
            self.on_waiting()

    def spent_more(self, usage: Usage, within: str = "") -> dict[str, int]:
        """Note what was spent in all by a call of a model; return how much more that is than what was noted before.

        `within` is the execution that spends, unless it is this one. Less than before is no more.
        """
        spent = {"tokens": usage.input_tokens + usage.output_tokens, "cost_micros": usage.cost_micros, "model_calls": 1}
        key = (within, usage.owner_id, usage.id)
        before = self._spent.get(key, {})
        self._spent[key] = {name: max(amount, before.get(name, 0)) for name, amount in spent.items()}
        return {name: max(0, amount - before.get(name, 0)) for name, amount in spent.items()}

    def ran_more(self, calls: Iterable[ToolCall], within: str) -> int:
        """Note which tools have run in another execution; return how many of them were not noted before."""
        ran = {(within, call.id) for call in calls if was_run(call)} - self._ran
        self._ran |= ran
        return len(ran)

    def counted_before(self, call_id: str) -> bool:
        """Tell, once, whether an earlier attempt has made a tool call: it is counted then."""
        if call_id in self._repeated or self.record.call(call_id) is None:
            return False
        self._repeated.add(call_id)
        return True

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
        return self._secrets.redacted(text)


def was_run(call: ToolCall) -> bool:
    """Tell whether a tool call has come to run: one that was refused costs nothing."""
    return bool(call.started_at) or call.status in (TOOL_CALL_RUNNING, TOOL_CALL_COMPLETED)


def _nobody() -> None:
    """Hear it for nobody."""


def now() -> str:
    """Return the wall time as the API writes it. It marks entries; nothing is decided by it."""
    return to_rfc3339(datetime.now(UTC))
