"""The four resource types: their names, and the index terms each is found by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.pipeline.resources import ResourceType, common_terms, label_term
from runstream.storage.records import AGENT, AGENT_EXECUTION, AGENT_INSTANCE, SESSION
from runstream.storage.store import Term
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    AgentExecution,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.session_pb2 import Session


def agent_term(agent_id: str) -> Term:
    """What belongs to an agent."""
    return Term("agent", agent_id)


def instance_term(instance_id: str) -> Term:
    """What belongs to an agent instance."""
    return Term("instance", instance_id)


def session_term(session_id: str) -> Term:
    """What belongs to a session."""
    return Term("session", session_id)


def parent_term(execution_id: str) -> Term:
    """Executions that an execution has asked for."""
    return Term("parent", execution_id)


def phase_term(phase: int) -> Term:
    """Executions in a phase, by its number."""
    return Term("phase", str(phase))


def session_slug_term(instance_id: str, org: str, slug: str) -> Term:
    """Sessions of an instance by organization and slug; the lengths keep the three apart."""
    return Term("slug", f"{instance_id}:{len(org)}:{org}{slug}")


#: Executions that have been asked to cancel and have not ended.
CANCEL_TERM = Term("control", "cancel")


def _agent_terms(agent: Agent) -> frozenset[Term]:
    return frozenset(common_terms(agent.metadata))


def _instance_terms(instance: AgentInstance) -> frozenset[Term]:
    terms = common_terms(instance.metadata)
    terms.add(agent_term(instance.spec.agent_id))
    return frozenset(terms)


def _session_terms(session: Session) -> frozenset[Term]:
    terms = common_terms(session.metadata)
    instance_id = session.spec.agent_instance_id
    terms.add(instance_term(instance_id))
    terms.add(agent_term(session.status.agent_id))
    terms.add(session_slug_term(instance_id, session.metadata.org, session.metadata.slug))
    return frozenset(terms)


def status_terms(status: AgentExecutionStatus) -> set[Term]:
    """The terms of an execution that come from its status."""
    terms = {phase_term(status.phase)}
    if status.control.action == CONTROL_CANCEL:
        terms.add(CANCEL_TERM)
    return terms


def _execution_terms(execution: AgentExecution) -> frozenset[Term]:
    """The terms of an execution with its status, at least in the BASIC view."""
    spec, terms = execution.spec, common_terms(execution.metadata)
    terms.add(agent_term(spec.agent_id))
    terms |= status_terms(execution.status)
    if spec.session_id:
        terms.add(session_term(spec.session_id))
    if spec.context.parent_execution_id:
        terms.add(parent_term(spec.context.parent_execution_id))
    return frozenset(terms)


def _has_label(execution: AgentExecution, value: str) -> bool:
    return any(label_term(key, held).value == value for key, held in execution.metadata.labels.items())


#: Whether an execution is under a term of an index; says what `_execution_terms` says, term by term.
_UNDER: Final[dict[str, Callable[[AgentExecution, str], bool]]] = {
    "org": lambda execution, value: execution.metadata.org == value,
    "tag": lambda execution, value: value in execution.metadata.tags,
    "label": _has_label,
    "agent": lambda execution, value: execution.spec.agent_id == value,
    "session": lambda execution, value: bool(value) and execution.spec.session_id == value,
    "parent": lambda execution, value: bool(value) and execution.spec.context.parent_execution_id == value,
    "phase": lambda execution, value: str(execution.status.phase) == value,
    "control": lambda execution, value: CANCEL_TERM.value == value and CANCEL_TERM in status_terms(execution.status),
}


def is_under(execution: AgentExecution, term: Term) -> bool:
    """Tell whether an execution, at least BASIC, is indexed under a term, without making all of its terms."""
    return _UNDER[term.index](execution, term.value)


AGENTS = ResourceType(AGENT, "Agent", "AGENT", "agt", _agent_terms, unique_slug=True)
INSTANCES = ResourceType(AGENT_INSTANCE, "AgentInstance", "AGENT_INSTANCE", "ain", _instance_terms, unique_slug=True)
SESSIONS = ResourceType(SESSION, "Session", "SESSION", "ses", _session_terms, unique_slug=False)
EXECUTIONS = ResourceType(
    AGENT_EXECUTION,
    "AgentExecution",
    "AGENT_EXECUTION",
    "aex",
    _execution_terms,
    unique_slug=False,
)
