"""Aside: work outside of any execution: a tool that is tried by hand, code that has a context and no assignment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runstream.runner.bridge import Bridge
from runstream.runner.context.budget import Budget, Ledger
from runstream.runner.context.secrets import Secrets
from runstream.runner.context.work import Work
from runstream.runner.crew import AgentCrew
from runstream.runner.desk import Desk
from runstream.runner.invocation import Environment, Setting
from runstream.runner.mailbox import Mailbox
from runstream.runner.outlet import Unstored
from runstream.runner.record import Record
from runstream.runner.reporter import Reporter
from runstream.v1.agent_execution_pb2 import AgentExecutionStatus
from runstream.v1.runner_pb2 import Assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runstream.runner.executions import Executions


def aside(
    budget: Budget | None = None,
    variables: Mapping[str, str] | None = None,
    *,
    hear: Callable[[AgentExecutionStatus], None] | None = None,
    executions: Executions | None = None,
) -> Work:
    """Return work that reports nowhere: `hear` is told each delta. All `variables` are secret.

    With `executions`, agents can be delegated to, as executions without a parent.
    """
    secrets = Secrets(variables or {}, (variables or {}).keys())
    mailbox = Mailbox()
    desk = Desk(Unstored(hear), mailbox, Record(AgentExecutionStatus()), 1, secrets)
    setting = Setting(Assignment(attempt=1), Environment(variables or {}), mailbox, Bridge(_running()))
    ledger = Ledger(budget or Budget())
    return Work(Reporter(desk, ledger), secrets, ledger, AgentCrew(desk, setting, executions), setting.bridge)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
