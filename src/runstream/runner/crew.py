"""Crew: the other agents that work for one: in this process, or as executions of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runstream.runner.agents import Agent, invoke
from runstream.runner.bridge import Bridge
from runstream.runner.context.ambient import entered
from runstream.runner.context.deadline import within_deadline
from runstream.runner.context.limits import tool_names
from runstream.runner.context.value import bridged, narrowed
from runstream.runner.delegation import Delegation
from runstream.runner.errors import AgentFailure
from runstream.runner.invocation import Invocation
from runstream.runner.tracing import spanned

if TYPE_CHECKING:
    from runstream.runner.agents import AgentFunction
    from runstream.runner.context.limits import Limits, Order
    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.delegation import Delegated
    from runstream.runner.desk import Desk
    from runstream.runner.executions import Executions
    from runstream.runner.invocation import Setting


class AgentCrew:
    """The crew of one run."""

    def __init__(self, desk: Desk, setting: Setting, executions: Executions | None) -> None:
        """Work at `desk`, in `setting`; `executions` is the service that makes executions, if it can be reached."""
        self._desk = desk
        self._setting = setting
        self._executions = executions

    async def delegate(self, context: ExecutionContext, agent: str, message: str, order: Order) -> Delegated:
        """Have an agent execute `message` as an execution of its own; return what it has come to."""
        if self._executions is None:
            raise AgentFailure("NO_SERVICE", "There is no server here to delegate to.")
        return await Delegation(self._desk, self._executions, context, agent, message).result(order)

    async def sub_agent(  # noqa: PLR0913  # each is an option
        self,
        context: ExecutionContext,
        agent: AgentFunction | Agent,
        message: str,
        limits: Limits,
        *,
        name: str,
        call_id: str,
    ) -> str:
        """Have an agent do `message` in this process; return its answer."""
        function = agent.function if isinstance(agent, Agent) else agent
        if not callable(function):
            raise TypeError(f"sub_agent takes an agent function, not {agent!r}; for a name, use delegate")
        name = name or getattr(function, "__name__", type(function).__name__).strip("_<>")
        context.budget.below()  # before anything is told
        call = call_id or context.parent_call or ""
        async with context.report.sub_agent(name, message, call_id=call) as sub:
            own = {"agent": name, "agent_revision": 0, "agent_tools": _tools(agent)}
            child = narrowed(context, limits, call or None, below=True, report=sub.report, **own)
            bridge = Bridge(above=self._setting.bridge)
            child = bridged(child, bridge)
            setting = replace(self._setting, bridge=bridge)
            with spanned("invoke_agent", name, child) as within, entered(within), bridge:
                async with within_deadline(within, f"the sub-agent {name!r}"):
                    sub.output = await answer(function, Invocation(setting, within, message))
            return str(sub.output)


def _tools(agent: AgentFunction | Agent) -> frozenset[str] | None:
    return tool_names(agent.tools) if isinstance(agent, Agent) and agent.tools else None


async def answer(function: AgentFunction, invocation: Invocation) -> str:
    """Run an agent to its end, and return the last thing it said."""
    await invoke(function, invocation)
    return invocation.report.last_said
