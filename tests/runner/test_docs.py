"""The page about runners: what it shows runs as it stands there."""

from __future__ import annotations

import asyncio
import inspect
import re
import signal
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path
from typing import Any

from runstream.runner import Reporter, Runner
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_REJECT,
    EXECUTION_COMPLETED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    TODO_COMPLETED,
)
from runstream.v1.agent_execution_service_pb2 import SubmitApprovalInput, SubmitInputInput
from tests.making import an_agent, execution
from tests.runner.served import SECONDS, Served, said, serving_agents, until
from tests.serving import serving

PAGE = (Path(__file__).parents[2] / "docs" / "runners.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def shown() -> dict[str, Any]:
    """What the page defines after its first program, in one module."""
    names: dict[str, Any] = {}
    for block in BLOCKS[1:]:
        exec(compile(block, "runners.md", "exec"), names)  # noqa: S102  # our own page
    return names


async def test_the_first_program_runs_as_it_stands(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server, asyncio.timeout(SECONDS):
        agent_id = await an_agent(server.client, "greeter")
        program = BLOCKS[0].replace("127.0.0.1:7400", server.server.address)
        assert len([line for line in program.splitlines() if line]) <= 10
        process = await create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=PIPE)
        made = await server.client.executions.Create(execution(agent_id=agent_id, message="Ada"))
        state = await until(server.client, made.metadata.id, lambda state: state.status.phase == EXECUTION_COMPLETED)
        assert said(state) == ["Hello, Ada!"]
        process.send_signal(signal.SIGTERM)
        assert await process.communicate() == (b"", b"")
        assert process.returncode == 0


async def test_the_agents_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    names = shown()
    agents = {name: names[name] for name in ("answers", "blocks", "researcher", "deployer")}
    agents |= {"travel-agent": names["travel_agent"], **names["agents"]}
    async with serving_agents(tmp_path / "data", agents) as served:
        assert said(await served.result(agent="answers")) == ["Let me think. ", "42"]
        assert said(await served.result(agent="blocks")) == ["Still here. ", "Done."]
        assert said(await served.result(agent="thorough")) == ["A page."]
        assert said(await served.result(agent="careful", TOKEN="hush")) == ["Working. "]  # noqa: S106  # made up
        refused = await served.result(agent="careful")
        assert (refused.status.reason, refused.status.error) == ("NO_TOKEN", "Give me a TOKEN in runtime_env.")
        await expect_research(served)
        await expect_people(served)


async def expect_research(served: Served) -> None:
    """Check what the researcher leaves."""
    status = (await served.result(agent="researcher")).status
    assert [message.content for message in status.messages][-1] == "Read *On Growth and Form*."
    assert status.tool_calls[0].result == '{"titles": ["On Growth and Form"]}'
    assert status.sub_agent_executions[0].output == "Yes."
    assert {todo.status for todo in status.todos.values()} == {TODO_COMPLETED}
    assert status.usage[0].input_tokens == 812


async def expect_people(served: Served) -> None:
    """Check what the deployer and the travel agent make of what they are told."""
    deploys = await served.create(agent="deployer")
    await served.in_phase(deploys, EXECUTION_WAITING_FOR_APPROVAL)
    await served.client.executions.SubmitApproval(
        SubmitApprovalInput(
            agent_execution_id=deploys, tool_call_id="deploy", action=APPROVAL_REJECT, comment="not today"
        )
    )
    assert said(await served.ended(deploys)) == ["Not deployed: not today"]
    travels = await served.create(agent="travel-agent")
    await served.in_phase(travels, EXECUTION_WAITING_FOR_INPUT)
    await served.client.executions.SubmitInput(SubmitInputInput(execution_id=travels, message="Uppsala"))
    assert said(await served.ended(travels)) == ["Where to?", "Uppsala", "One ticket to Uppsala."]


def test_the_reference_names_every_option_and_every_report() -> None:
    reference = PAGE.partition("## Reference")[2]
    options = list(inspect.signature(Runner).parameters)
    reports = [name for name, _ in inspect.getmembers(Reporter, inspect.isfunction) if not name.startswith("_")]
    assert [name for name in options + reports if f"`{name}" not in reference] == []
