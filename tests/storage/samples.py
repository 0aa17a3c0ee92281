"""Made-up ids, records and transactions for the tests of the store."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Transaction
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    AgentExecution,
    ExecutionChange,
)

if TYPE_CHECKING:
    from runstream.storage.store import Store

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def make_id(time_ms: int, entropy: int = 0, prefix: str = "aex") -> str:
    """Make the id of a resource that was created at `time_ms`."""
    number = time_ms << 80 | entropy
    digits = [_CROCKFORD[number >> 5 * place & 31] for place in reversed(range(26))]
    return f"{prefix}_{''.join(digits)}"


def make_execution(execution_id: str, revision: int = 1, name: str = "") -> AgentExecution:
    """Make the record of an execution."""
    execution = AgentExecution()
    execution.metadata.id = execution_id
    execution.metadata.revision = revision
    execution.metadata.name = name
    return execution


def make_change(execution_id: str, revision: int, text: str = "") -> ExecutionChange:
    """Make a change that appends `text` to the one message of an execution."""
    change = ExecutionChange(execution_id=execution_id, revision=revision)
    if revision == 1:
        change.created.metadata.id = execution_id
        change.created.status.messages.add(id="m1", content=text)
    else:
        change.status.messages.add(id="m1", content_append=text)
    return change


def step(execution_id: str, revision: int, text: str = "") -> Transaction:
    """Make the commit that takes an execution to `revision`: its head and its change."""
    transaction = Transaction()
    transaction.expect(EXECUTION_HEAD, execution_id, revision - 1 or None)
    transaction.put(EXECUTION_HEAD, execution_id, ExecutionHead(revision=revision))
    transaction.append(make_change(execution_id, revision, text))
    return transaction


def put_execution(execution_id: str, name: str = "") -> Transaction:
    """Make the commit that stores the record of an execution."""
    transaction = Transaction()
    transaction.put(AGENT_EXECUTION, execution_id, make_execution(execution_id, name=name))
    return transaction


class Narrator:
    """Writes the story of one execution: changes of all kinds, with heads that count the bytes."""

    def __init__(self, store: Store, execution_id: str, seed: int = 0) -> None:
        self._store = store
        self._random = random.Random(seed)
        self.execution_id = execution_id
        self.head = ExecutionHead()

    async def write(self, count: int) -> None:
        """Commit so many changes of any kind."""
        for _ in range(count):
            await self._store.commit(self.next())

    async def commit_text(self, text: str, message: str = "m") -> None:
        """Commit a change that appends text to a message."""
        change = self._change()
        if change.revision == 1:
            change.created.metadata.id = self.execution_id
            change.created.status.messages.add(id=message, content=text)
        else:
            change.status.messages.add(id=message, content_append=text)
        await self._store.commit(self._stage(change))

    def next(self) -> Transaction:
        """Stage the next change, of any kind."""
        change = self._change()
        if change.revision == 1:
            change.created.metadata.id = self.execution_id
            change.created.metadata.revision = 1
            change.created.spec.message = "do it" * 100
            change.created.status.phase = EXECUTION_PENDING
        else:
            self._random.choice([self._say, self._say, self._call, self._plan, self._update, self._empty])(change)
        return self._stage(change)

    def unfoldable(self) -> ExecutionChange:
        """Make a change that no fold takes."""
        return self._change()

    def _change(self) -> ExecutionChange:
        revision = self.head.revision + 1
        change = ExecutionChange(execution_id=self.execution_id, revision=revision)
        change.change_time.FromMilliseconds(revision)
        return change

    def _stage(self, change: ExecutionChange) -> Transaction:
        head = ExecutionHead(revision=change.revision, log_bytes=self.head.log_bytes + change.ByteSize())
        transaction = Transaction()
        transaction.expect(EXECUTION_HEAD, self.execution_id, self.head.revision or None)
        transaction.put(EXECUTION_HEAD, self.execution_id, head)
        transaction.append(change)
        self.head = head
        return transaction

    def _say(self, change: ExecutionChange) -> None:
        text = "word " * self._random.randrange(20)
        change.status.messages.add(id=f"m{self._random.randrange(9)}", content_append=text)

    def _call(self, change: ExecutionChange) -> None:
        change.status.tool_calls.add(id=f"t{self._random.randrange(9)}", result="r" * 50)
        change.status.messages.add(id="m0").tool_calls.add(id="inner", name="search")

    def _plan(self, change: ExecutionChange) -> None:
        change.status.todos[f"d{self._random.randrange(9)}"].content = "think"
        change.status.phase = EXECUTION_IN_PROGRESS

    def _update(self, change: ExecutionChange) -> None:
        change.updated.metadata.id = self.execution_id
        change.updated.metadata.revision = change.revision
        change.updated.spec.message = "do that" * 100

    def _empty(self, change: ExecutionChange) -> None:
        change.status.SetInParent()
        change.replace_mask.append(self._random.choice(["messages", "tool_calls", "todos"]))
