"""References: nothing points to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.care.examination import named
from runstream.care.findings import Code
from runstream.storage.records import AGENT, AGENT_EXECUTION, AGENT_INSTANCE, SESSION

if TYPE_CHECKING:
    from runstream.care.examination import Examination
    from runstream.storage.records import AnyKind
    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.session_pb2 import Session


class References:
    """Checks that what a resource names is there, and is of the same agent."""

    def __init__(self, examination: Examination) -> None:
        self._examination = examination

    def check_execution(self, execution_id: str, execution: AgentExecution) -> None:
        """Check agent, session and parent. A parent may have been deleted; one that is there must be above."""
        spec, where = execution.spec, named(AGENT_EXECUTION, execution_id)
        self._require(where, AGENT, spec.agent_id)
        if not spec.context.stateless and self._require(where, SESSION, spec.session_id):
            session = self._examination.read(SESSION, spec.session_id)
            if session is not None and session.status.agent_id != spec.agent_id:
                self._broken(where, f"its session {spec.session_id} is of another agent")
        parent_id = spec.context.parent_execution_id
        parent = self._examination.read(AGENT_EXECUTION, parent_id) if parent_id else None
        if parent is not None:
            above = parent.spec.context
            if (spec.context.depth, spec.context.root_execution_id) != (
                above.depth + 1,
                above.root_execution_id or parent_id,
            ):
                self._broken(where, f"it does not stand right below its parent {parent_id}")

    def check_session(self, session_id: str, session: Session) -> None:
        """Check the instance, which must be of the session's agent."""
        where, instance_id = named(SESSION, session_id), session.spec.agent_instance_id
        if self._require(where, AGENT_INSTANCE, instance_id):
            instance = self._examination.read(AGENT_INSTANCE, instance_id)
            if instance is not None and instance.spec.agent_id != session.status.agent_id:
                self._broken(where, f"its instance {instance_id} is of another agent")

    def check_instance(self, instance_id: str, instance: AgentInstance) -> None:
        """Check the agent."""
        self._require(named(AGENT_INSTANCE, instance_id), AGENT, instance.spec.agent_id)

    def check_agent(self, agent_id: str, agent: Agent) -> None:
        """Check the default instance, if there is one."""
        where, default_id = named(AGENT, agent_id), agent.status.default_instance_id
        if default_id and self._require(where, AGENT_INSTANCE, default_id):
            instance = self._examination.read(AGENT_INSTANCE, default_id)
            if instance is not None and instance.spec.agent_id != agent_id:
                self._broken(where, f"its default instance {default_id} is of another agent")

    def _require(self, where: str, kind: AnyKind, record_id: str) -> bool:
        """Tell whether a record is there, and tell of it when not."""
        there = self._examination.exists(kind, record_id)
        if not there:
            self._broken(where, f"it names the {named(kind, record_id)}, which is not there")
        return there

    def _broken(self, where: str, told: str) -> None:
        self._examination.found(Code.REFERENCE_BROKEN, where, told)
