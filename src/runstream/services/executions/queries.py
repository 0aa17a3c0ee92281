"""The queries on executions. They read what is on disk, by index and keyset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.model.errors import invalid_field, not_found
from runstream.model.times import to_millis
from runstream.services.paging import fill_page
from runstream.services.resource_queries import ResourceQueries, common_groups
from runstream.services.resource_types import (
    EXECUTIONS,
    SESSIONS,
    agent_term,
    is_under,
    phase_term,
    session_term,
)
from runstream.storage.records import AGENT_EXECUTION
from runstream.storage.store import Query, Range
from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionList
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_UNSPECIFIED

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from runstream.services.wiring import Wiring
    from runstream.v1.agent_execution_service_pb2 import (
        GetAgentExecutionRequest,
        ListAgentExecutionsBySessionRequest,
        ListAgentExecutionsRequest,
    )
    from runstream.v1.resource_pb2 import ResourceView


class AgentExecutionQueries:
    """Reads executions."""

    def __init__(self, wiring: Wiring) -> None:
        self._store = wiring.store
        self._executions = wiring.executions
        self._sessions = ResourceQueries(wiring.store, SESSIONS)

    async def get(self, request: GetAgentExecutionRequest) -> AgentExecution:
        """Return the execution, FULL unless asked otherwise. NOT_FOUND."""
        found = await self._executions.get(request.value, request.view)
        if found is None:
            raise not_found(EXECUTIONS.code, request.value)
        return found

    async def list(self, request: ListAgentExecutionsRequest) -> AgentExecutionList:
        """Return a page of the executions that match, newest first, BASIC unless asked otherwise."""
        return await self._page(query_of(request), request, request.view)

    async def list_by_session(self, request: ListAgentExecutionsBySessionRequest) -> AgentExecutionList:
        """Return a page of a session's executions, newest first. NOT_FOUND for an unknown session."""
        await self._sessions.by_id(request.session_id)
        query = Query(AGENT_EXECUTION, ((session_term(request.session_id),),))
        return await self._page(query, request, request.view)

    async def _page(
        self,
        query: Query,
        request: ListAgentExecutionsRequest | ListAgentExecutionsBySessionRequest,
        view: ResourceView.ValueType,
    ) -> AgentExecutionList:
        async def load(execution_id: str) -> AgentExecution | None:
            found = await self._executions.get(execution_id, _or_basic(view))
            # Its phase, tags or labels may have changed since the scan.
            return found if found is not None and matches(query, found) else None

        answer = AgentExecutionList()
        await fill_page(self._store, query, request, answer, load)
        return answer


def query_of(request: ListAgentExecutionsRequest) -> Query:
    """Make the query for the filters of a list request. INVALID_ARGUMENT for times out of range or order."""
    groups = common_groups(org=request.org, tags=request.tags, labels=request.labels)
    if request.session_id:
        groups.append((session_term(request.session_id),))
    if request.agent_id:
        groups.append((agent_term(request.agent_id),))
    phases = {*request.phases, *([request.phase] if request.phase else [])}
    if phases:
        groups.append(tuple(phase_term(phase) for phase in sorted(phases)))
    return Query(AGENT_EXECUTION, tuple(groups), _range_of(request))


def matches(query: Query, execution: AgentExecution) -> bool:
    """Tell whether an execution, at least BASIC, is one that the query finds."""
    created = to_millis(execution.status.audit.spec_audit.created_at)
    start, stop = query.range.start, query.range.stop
    if (start is not None and created < start) or (stop is not None and created >= stop):
        return False
    return all(any(is_under(execution, term) for term in group) for group in query.all_of)


def _range_of(request: ListAgentExecutionsRequest) -> Range:
    start = _millis("created_after", request.created_after, request.HasField("created_after"))
    stop = _millis("created_before", request.created_before, request.HasField("created_before"))
    if start is not None and stop is not None and start > stop:
        raise invalid_field("created_before", "INVALID_TIME_RANGE", "must not be earlier than created_after")
    return Range(start, stop)


def _millis(field: str, timestamp: Timestamp, given: bool) -> int | None:  # noqa: FBT001
    if not given:
        return None
    try:
        return max(0, to_millis(timestamp))
    except ValueError as error:
        raise invalid_field(field, "INVALID_TIMESTAMP", str(error)) from error


def _or_basic(view: ResourceView.ValueType) -> ResourceView.ValueType:
    return RESOURCE_VIEW_BASIC if view == RESOURCE_VIEW_UNSPECIFIED else view
