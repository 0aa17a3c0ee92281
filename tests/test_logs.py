"""The log of a server: what each line names, so that a call, an execution and a trace are found in it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from runstream.v1.agent_execution_pb2 import EXECUTION_CANCELLED, EXECUTION_COMPLETED
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from tests.attached import attached
from tests.making import NOWHERE, a_running_execution, agent, an_agent, an_execution, delta, execution, stored
from tests.process import server_process
from tests.serving import refusal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process import ServerProcess

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = f"00-{TRACE_ID}-b7ad6b7169203331-01"
COMMANDS = "/runstream.v1.AgentExecutionCommandController"


async def log_of(server: ServerProcess) -> list[dict[str, Any]]:
    """End a server; return the lines of its log, each of which must be an object of JSON."""
    assert await server.terminate() == 0
    return [json.loads(line) for line in server.log if not line.startswith("engine ")]


def events(log: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the lines of one event."""
    return [line for line in log if line["event"] == name]


async def test_a_refused_call_names_all_that_finds_it(tmp_path: Path) -> None:
    """A line for each: the request id, the method, the code, the reason, the execution and the trace."""
    async with server_process(tmp_path / "data", log_format="json", log_level="info") as server:
        async with server.client() as client:
            execution_id = await a_running_execution(client)
            told = (("x-request-id", "mine"), ("traceparent", TRACE))
            await refusal(client.executions.UpdateStatus(delta(execution_id, attempt=7), metadata=told))
            unknown = f"aex_{NOWHERE}"
            await refusal(client.queries.Get(GetAgentExecutionRequest(value=unknown)))
            await refusal(client.queries.Watch(WatchAgentExecutionRequest(execution_id=unknown)).read())
            await refusal(client.agent_queries.Get(ResourceId(value="nonsense")))
            changed = await stored(client, execution_id)
            changed.metadata.revision = 1
            await refusal(client.executions.Update(changed))
        refused = events(await log_of(server), "refused")
    first = refused[0]
    assert first.pop("ms") >= 0
    assert first.pop("timestamp")
    assert first == {
        "event": "refused",
        "level": "info",
        "method": f"{COMMANDS}/UpdateStatus",
        "request_id": "mine",
        "execution_id": execution_id,
        "trace_id": TRACE_ID,
        "code": "FAILED_PRECONDITION",
        "reason": "STALE_ATTEMPT",
    }
    named = [(line["code"], line.get("execution_id"), line.get("trace_id")) for line in refused[1:]]
    assert named == [
        ("NOT_FOUND", unknown, None),
        ("NOT_FOUND", unknown, None),
        ("INVALID_ARGUMENT", None, None),
        ("ABORTED", execution_id, None),
    ]
    assert all(line["request_id"] for line in refused)


async def test_calls_that_are_served_are_told_for_debugging_alone(tmp_path: Path) -> None:
    """With the debug log every call and every step is a line; else neither is."""
    for level in ("debug", "info"):
        async with server_process(tmp_path / level, log_format="json", log_level=level) as server:
            async with server.client() as client:
                execution_id = await an_execution(client)
                await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
            log = await log_of(server)
        methods = [(line["method"], line.get("execution_id")) for line in events(log, "served")]
        steps = [line["step"] for line in events(log, "step") if line["pipeline"] == "AgentExecution.UpdateStatus"]
        if level == "debug":
            assert methods[-1] == (f"{COMMANDS}/UpdateStatus", execution_id)
            assert len(methods) == 3
            assert steps[0] == "ValidateFieldConstraints"
        else:
            assert (methods, steps) == ([], [])


async def test_a_call_that_comes_while_the_server_drains_is_told(tmp_path: Path) -> None:
    """What is refused for the shutdown is a line like any other refusal."""
    async with server_process(tmp_path / "data", log_format="json", log_level="info") as server:
        async with server.client() as client:
            watching = client.queries.Watch(WatchAgentExecutionRequest(execution_id=await an_execution(client)))
            await watching.read()
            server.ask_to_end()
            assert (await refusal(watching.read())).reason == "SHUTTING_DOWN"
        assert await server.wait() == 0
        log = [json.loads(line) for line in server.log if not line.startswith("engine ")]
    assert [line["reason"] for line in events(log, "refused")] == ["SHUTTING_DOWN"]


async def test_what_the_server_does_by_itself_names_the_execution(tmp_path: Path) -> None:
    """A cancel that nobody complied with, and a lease that was given back, are lines with their execution."""
    async with server_process(tmp_path / "data", log_format="json", log_level="info", cancel_grace=0) as server:
        async with server.client() as client, attached(client) as runner:
            agent_id = await an_agent(client)
            made = await client.executions.Create(execution(agent_id=agent_id))
            await runner.assignment()
            await runner.detach()
            await runner.assignment()
            await client.executions.Cancel(CancelAgentExecutionInput(id=made.metadata.id, reason="enough"))
            async with asyncio.timeout(30):
                while (await stored(client, made.metadata.id)).status.phase != EXECUTION_CANCELLED:
                    pass
        told = events(await log_of(server), "by_server")
    assert [(line["what"], line["execution_id"], line["attempt"]) for line in told] == [
        ("returned", made.metadata.id, 1),
        ("cancelled", made.metadata.id, 2),
    ]
    assert told[1]["reason"] == "CANCEL_UNACKNOWLEDGED"
    assert told[1]["phase"] == "EXECUTION_CANCELLED"


async def test_a_runner_that_is_lost_is_told_with_what_it_held(tmp_path: Path) -> None:
    """The end of a lease is a warning for the runner and one for each execution."""
    async with server_process(tmp_path / "data", log_format="json", lease_duration=0.2) as server:
        async with server.client() as client:
            agent_id = await an_agent(client)
            async with attached(client) as runner:
                made = await client.executions.Create(execution(agent_id=agent_id))
                await runner.assignment()
                await runner.command("lost")
        log = await log_of(server)
    assert [line["runner"] for line in events(log, "runner_lost")] == ["runner-1"]
    lost = [line for line in events(log, "by_server") if line["what"] == "runner_lost"]
    assert [(line["level"], line["execution_id"]) for line in lost] == [("warning", made.metadata.id)]


async def test_the_pages_that_are_served_are_told_at_the_start(tmp_path: Path) -> None:
    """The log tells where the metrics are, with the port that was chosen."""
    async with server_process(tmp_path / "data", log_format="json", log_level="info", metrics="127.0.0.1:0") as server:
        async with server.client() as client:
            await client.agents.Create(agent())
        (told,) = events(await log_of(server), "metrics")
    assert told["url"].startswith("http://127.0.0.1:")
    assert told["url"].endswith("/metrics")
