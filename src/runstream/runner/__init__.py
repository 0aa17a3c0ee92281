"""The SDK for runners: a function becomes an agent, and a process serves it.

    from runstream.runner import Runner

    async def greet(invocation):
        yield f"Hello, {invocation.message}."

    Runner("127.0.0.1:7400", agents={"greeter": greet}).run()

`docs/runners.md` teaches it. Inside: `runner` is the process, `link` its tie to the server, `held` what it works on,
`run` the life of one attempt, `reporter` what an agent reports with, `outbox` how that arrives exactly once.
"""

from runstream.runner.agents import Agent, AgentFunction
from runstream.runner.decisions import Approval, Decision
from runstream.runner.errors import (
    AgentFailure,
    Paused,
    ReportClosed,
    ReportRefused,
    RunnerRefused,
    ToolDeclined,
    ToolRejected,
    ToolSkipped,
)
from runstream.runner.events import Event
from runstream.runner.invocation import Environment, Invocation
from runstream.runner.messages import Message
from runstream.runner.reporter import Reporter
from runstream.runner.runner import Runner
from runstream.runner.sub_agents import SubAgent
from runstream.runner.tools import ToolHandle

__all__ = [
    "Agent",
    "AgentFailure",
    "AgentFunction",
    "Approval",
    "Decision",
    "Environment",
    "Event",
    "Invocation",
    "Message",
    "Paused",
    "ReportClosed",
    "ReportRefused",
    "Reporter",
    "Runner",
    "RunnerRefused",
    "SubAgent",
    "ToolDeclined",
    "ToolHandle",
    "ToolRejected",
    "ToolSkipped",
]
