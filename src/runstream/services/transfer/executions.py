"""Executions from another server: their logs come in piece by piece, and are seen whole or not at all.

The changes of an import are written where they belong. A tombstone that says so stands beside them, as one stands
beside the log of what was deleted: so nobody sees them, a crash leaves what the next start purges, and an import that
is begun anew has the purger take the rest of the one before. The last piece removes the tombstone in the commit that
writes head, record, index entries and snapshot.

All calls of one execution take turns, so nothing of it is purged while its last piece is decided.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from runstream.model.errors import Aborted, FieldViolation, NotFound
from runstream.model.phases import is_terminal
from runstream.model.times import to_timestamp
from runstream.pipeline.context import SYSTEM, ContextKey
from runstream.pipeline.steps import Persist
from runstream.services.executions.loading import Loaded
from runstream.services.executions.parents import stage_in_parent
from runstream.services.resource_commands import require
from runstream.services.resource_types import AGENTS, EXECUTIONS, SESSIONS
from runstream.services.transfer.endings import last_change, note_queued
from runstream.services.transfer.pieces import check_id, check_length, check_same, log_invalid, read_piece
from runstream.services.transfer.whole_log import WholeLog
from runstream.storage.records import (
    AGENT_EXECUTION,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    STATUS_SNAPSHOT,
    TOMBSTONE,
)
from runstream.storage.store import Transaction
from runstream.stored.v1.stored_pb2 import ExecutionSecrets, Tombstone
from runstream.v1.transfer_pb2 import (
    IMPORT_OUTCOME_IMPORTED,
    IMPORT_OUTCOME_TAKEN,
    IMPORT_OUTCOME_UNCHANGED,
    ImportExecutionRequest,
    ImportExecutionResponse,
)

if TYPE_CHECKING:
    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.pipeline.engine import Pipeline
    from runstream.services.wiring import Wiring
    from runstream.v1.agent_execution_pb2 import ExecutionChange
    from runstream.v1.agent_pb2 import Agent

    ImportContext = RequestContext[ImportExecutionRequest, Any]

_PIECE: ContextKey[list[ExecutionChange]] = ContextKey("piece of a log")
_AGENT: ContextKey[Agent] = ContextKey("agent of an import")
_LOG: ContextKey[WholeLog] = ContextKey("whole log")
#: From which size on a log gets a stored fold.
_MIN_SNAPSHOT_BYTES: Final = 16 << 10


class ExecutionImport:
    """Imports executions."""

    def __init__(self, wiring: Wiring) -> None:
        self._pipeline = _pipeline(wiring)
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, request: ImportExecutionRequest) -> ImportExecutionResponse:
        """Take a piece; durable when it returns."""
        lock = self._locks.setdefault(request.execution_id, asyncio.Lock())
        async with lock:
            return await self._pipeline.run(request, SYSTEM)


def _pipeline(wiring: Wiring) -> Pipeline[ImportExecutionRequest, Any, ImportExecutionResponse]:
    return wiring.pipeline(
        "AgentExecution.Import",
        [
            ReadPiece(wiring.ids),
            AnswerIfThere(),
            GoOn(),
            StagePiece(),
            FoldLog(),
            RequireNamed(),
            StageLastChange(),
            StageImported(),
            Persist(),
            answer_imported,
        ],
        ImportExecutionResponse,
    )


class ReadPiece:
    """Reads the changes of the request. INVALID_ARGUMENT, reasons LOG_INVALID, ID_FROM_FUTURE."""

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids

    async def __call__(self, context: ImportContext) -> None:
        """Leave the changes for later steps."""
        check_id("execution_id", context.request.execution_id, context.now)
        context.put(_PIECE, await read_piece(context.request))
        self._ids.observe(context.request.execution_id)


class AnswerIfThere:
    """Answers when the execution is there with the same changes. ALREADY_EXISTS, reason EXECUTION_DIFFERS."""

    async def __call__(self, context: ImportContext) -> ImportExecutionResponse | None:
        """Compare the piece; with the last one, the length too."""
        request, piece = context.request, context.value(_PIECE)
        head = await context.get(EXECUTION_HEAD, request.execution_id)
        if head is None:
            return None
        await check_same(context.store.pending, request.execution_id, piece)
        outcome = IMPORT_OUTCOME_TAKEN
        if request.last:
            await check_length(context.store.pending, request.execution_id, piece[-1].revision, head.revision)
            outcome = IMPORT_OUTCOME_UNCHANGED
        await context.settled()
        return ImportExecutionResponse(outcome=outcome, revision=head.revision, phase=head.status.phase)


class GoOn:
    """Expects the pieces before this one. ABORTED, reason IMPORT_OUT_OF_STEP."""

    async def __call__(self, context: ImportContext) -> None:
        """Compare with the tombstone; the rest of an import that was begun before is given to the purger."""
        execution_id, after = context.request.execution_id, context.request.after_revision
        begun = await context.get(TOMBSTONE, execution_id)
        if begun is None and after == 0:
            context.transaction.expect(TOMBSTONE, execution_id, None)
        elif begun is not None and begun.importing and begun.revision == after + 1:
            context.transaction.expect(TOMBSTONE, execution_id, begun.revision)
        else:
            if begun is not None and begun.importing:
                begun.importing = False
                giving_up = Transaction()
                giving_up.put(TOMBSTONE, execution_id, begun)
                await context.store.commit(giving_up)
            raise Aborted(
                "IMPORT_OUT_OF_STEP",
                f"Execution {execution_id} has not come in up to revision {after}, or what was there of it is being"
                " removed. Begin with its first piece again, shortly.",
                metadata={"id": execution_id},
            )
        context.transaction.expect(EXECUTION_HEAD, execution_id, None)
        context.transaction.expect(AGENT_EXECUTION, execution_id, None)
        for change in context.value(_PIECE):
            context.transaction.append(change)


class StagePiece:
    """Answers to a piece that is not the last: it is on disk, and nobody sees it."""

    async def __call__(self, context: ImportContext) -> ImportExecutionResponse | None:
        """Commit the piece with a tombstone beside it."""
        request, last = context.request, context.value(_PIECE)[-1].revision
        if request.last:
            return None
        tombstone = Tombstone(revision=last + 1, delete_time=to_timestamp(context.now), importing=True)
        context.transaction.put(TOMBSTONE, request.execution_id, tombstone)
        await context.store.commit(context.transaction)
        return ImportExecutionResponse(outcome=IMPORT_OUTCOME_TAKEN, revision=last)


class FoldLog:
    """Folds the whole log and checks that a server has written it. INVALID_ARGUMENT, reason LOG_INVALID."""

    async def __call__(self, context: ImportContext) -> None:
        """Leave the log for later steps."""
        log, piece = WholeLog(context.request.execution_id), context.value(_PIECE)
        await log.read(context.store, context.request.after_revision)
        await log.extend(piece)
        log.check_end()
        context.put(_LOG, log)


class RequireNamed:
    """Demands what the execution names: agent, session, and a parent that was not deleted.

    NOT_FOUND, reason PARENT_NOT_FOUND for the latter. INVALID_ARGUMENT, reason LOG_INVALID, when they do not fit.
    """

    async def __call__(self, context: ImportContext) -> None:
        """Look them up, and leave the agent for later steps."""
        log = context.value(_LOG)
        spec = log.state.spec
        context.put(_AGENT, await require(context, AGENTS, spec.agent_id))
        if not spec.context.stateless:
            session = await require(context, SESSIONS, spec.session_id)
            if session.status.agent_id != spec.agent_id:
                raise log_invalid(log.id, log.revision, f"its session {spec.session_id} is of another agent")
        if spec.context.parent_execution_id:
            await self._check_parent(context, log)

    @staticmethod
    async def _check_parent(context: ImportContext, log: WholeLog) -> None:
        own = log.state.spec.context
        parent = await context.get(AGENT_EXECUTION, own.parent_execution_id)
        if parent is None:
            if not context.request.parent_deleted:
                raise _no_parent(log.id, own.parent_execution_id)
            return
        above = parent.spec.context
        root_id = above.root_execution_id or own.parent_execution_id
        if (own.depth, own.root_execution_id) != (above.depth + 1, root_id):
            raise log_invalid(log.id, log.revision, f"it does not stand right below its parent {parent.metadata.id}")


class StageLastChange:
    """Ends or queues what had not ended, and tells the parent. FAILED_PRECONDITION, reason EXECUTION_NOT_ENDED."""

    async def __call__(self, context: ImportContext) -> None:
        """Add the change to the log, if there is one to add."""
        log, agent = context.value(_LOG), context.value(_AGENT)
        if is_terminal(log.phase):
            return
        before = log.head()
        change = last_change(context, log, context.request.live, agent)
        note_queued(log, before.status.phase, agent)
        await log.extend([change])
        context.transaction.append(change)
        if before.parent_id:
            await stage_in_parent(context, Loaded(log.id, before), log.head(), log.state.status)


class StageImported:
    """Stages everything that makes the execution visible."""

    async def __call__(self, context: ImportContext) -> None:
        """Add record, head, index entries, snapshot, and empty places for its secrets; the tombstone goes."""
        log, transaction = context.value(_LOG), context.transaction
        transaction.delete(TOMBSTONE, log.id)
        transaction.put(AGENT_EXECUTION, log.id, log.record())
        transaction.put(EXECUTION_HEAD, log.id, log.head())
        transaction.index(AGENT_EXECUTION, log.id, after=EXECUTIONS.terms(log.state))
        if log.size > _MIN_SNAPSHOT_BYTES:
            transaction.put(STATUS_SNAPSHOT, log.id, log.snapshot())
        names = log.secret_names()
        if names:
            secrets = ExecutionSecrets(values=dict.fromkeys(names, ""))
            transaction.put(EXECUTION_SECRETS, log.id, secrets)


async def answer_imported(context: ImportContext) -> ImportExecutionResponse:
    """Answer with what is there now."""
    status, revision = context.value(_LOG).state.status, context.value(_LOG).revision
    return ImportExecutionResponse(outcome=IMPORT_OUTCOME_IMPORTED, revision=revision, phase=status.phase)


def _no_parent(execution_id: str, parent_id: str) -> NotFound:
    told = (
        f"The parent {parent_id} of execution {execution_id} is not here. Import it first, or say with"
        " parent_deleted that it was deleted where they come from."
    )
    field = FieldViolation("changes", told, "PARENT_NOT_FOUND")
    return NotFound("PARENT_NOT_FOUND", told, fields=[field], metadata={"id": parent_id})
