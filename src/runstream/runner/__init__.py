"""The SDK for runners: a function becomes an agent, and a process serves it.

    from runstream.runner import Runner

    async def greet(invocation):
        yield f"Hello, {invocation.message}."

    Runner("127.0.0.1:7400", agents={"greeter": greet}).run()

`docs/runners.md` teaches it. Inside: `runner` is the process, `link` its tie to the server, `held` what it works on,
`run` the life of one attempt, `reporter` what an agent reports with, `outbox` how that arrives exactly once.
"""

from runstream.runner.agents import Agent, AgentFunction
from runstream.runner.context import (
    Budget,
    ExecutionContext,
    Thoroughness,
    build_context,
    current_context,
)
from runstream.runner.decisions import Approval, Decision
from runstream.runner.delegation import Delegated
from runstream.runner.errors import (
    AgentFailure,
    AgentMutated,
    BudgetExceeded,
    ContextInvalid,
    DeadlineExceeded,
    DelegationFailed,
    Paused,
    ReportClosed,
    ReportRefused,
    RunnerRefused,
    ToolArgumentsInvalid,
    ToolBroke,
    ToolDeclined,
    ToolNotAllowed,
    ToolRejected,
    ToolSkipped,
    ToolUnknown,
)
from runstream.runner.events import Event
from runstream.runner.invocation import Environment, Invocation
from runstream.runner.messages import Message
from runstream.runner.pool import AgentConfiguration, AgentPool
from runstream.runner.reporter import Reporter
from runstream.runner.runner import Runner
from runstream.runner.sub_agents import SubAgent
from runstream.runner.tools.dispatcher import ToolDispatcher
from runstream.runner.tools.handle import ToolHandle
from runstream.runner.tools.registry import ToolRegistry

__all__ = [
    "Agent",
    "AgentConfiguration",
    "AgentFailure",
    "AgentFunction",
    "AgentMutated",
    "AgentPool",
    "Approval",
    "Budget",
    "BudgetExceeded",
    "ContextInvalid",
    "DeadlineExceeded",
    "Decision",
    "Delegated",
    "DelegationFailed",
    "Environment",
    "Event",
    "ExecutionContext",
    "Invocation",
    "Message",
    "Paused",
    "ReportClosed",
    "ReportRefused",
    "Reporter",
    "Runner",
    "RunnerRefused",
    "SubAgent",
    "Thoroughness",
    "ToolArgumentsInvalid",
    "ToolBroke",
    "ToolDeclined",
    "ToolDispatcher",
    "ToolHandle",
    "ToolNotAllowed",
    "ToolRegistry",
    "ToolRejected",
    "ToolSkipped",
    "ToolUnknown",
    "build_context",
    "current_context",
]
