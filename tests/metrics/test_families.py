"""The families: after what a test has done, the page says exactly that."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, EXECUTION_IN_PROGRESS, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import (
    GetAgentExecutionRequest,
    ListAgentExecutionsRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from tests.attached import attached
from tests.clock import FakeClock
from tests.making import NOWHERE, a_running_execution, an_agent, an_execution, delta, execution, token
from tests.metrics.scrape import Scrape, scrape
from tests.serving import Serving, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.model.clock import Clock

COMMANDS = "/runstream.v1.AgentExecutionCommandController"
QUERIES = "/runstream.v1.AgentExecutionQueryController"
AGENTS = "/runstream.v1.AgentCommandController"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


class Measured:
    """A server that is measured, and its page."""

    def __init__(self, running: Serving) -> None:
        self.client = running.client
        self.server = running.server

    async def read(self) -> Scrape:
        """Read the page."""
        return await scrape(self.server.metrics_address)


@asynccontextmanager
async def measured(data: Path, clock: Clock | None = None) -> AsyncIterator[Measured]:
    """Run a server with a page for the length of the block."""
    async with serving(data, clock, metrics="127.0.0.1:0") as running:
        yield Measured(running)


async def test_calls_are_counted_by_method_and_code(tmp_path: Path) -> None:
    """Each call counts once, under its method and how it ended; those with one answer are timed."""
    async with measured(tmp_path / "data") as watched:
        execution_id = await a_running_execution(watched.client)
        for number in range(1, 8):
            await watched.client.executions.UpdateStatus(token(execution_id, "x", number))
        for _ in range(3):
            await refusal(watched.client.queries.Get(GetAgentExecutionRequest(value=f"aex_{NOWHERE}")))
        await refusal(watched.client.queries.Get(GetAgentExecutionRequest(value="nonsense")))
        page = await watched.read()
    ended = {key: page("runstream_calls_total", method=key[0], code=key[1]) for key in page_keys(page)}
    assert ended == {
        (f"{AGENTS}/Create", "OK"): 1,
        (f"{COMMANDS}/Create", "OK"): 1,
        (f"{COMMANDS}/UpdateStatus", "OK"): 8,
        (f"{QUERIES}/Get", "NOT_FOUND"): 3,
        (f"{QUERIES}/Get", "INVALID_ARGUMENT"): 1,
    }
    assert page("runstream_call_seconds_count", method=f"{COMMANDS}/UpdateStatus") == 8
    assert page("runstream_call_seconds_count", method=f"{QUERIES}/Get") == 4
    assert page("runstream_call_seconds_bucket", method=f"{QUERIES}/Get", le="+Inf") == 4
    assert page.by("runstream_calls_in_flight", "method") == {}


def page_keys(page: Scrape) -> list[tuple[str, str]]:
    """Return the methods and codes of all calls that were counted."""
    return [(sample.labels["method"], sample.labels["code"]) for sample in page.families["runstream_calls"].samples]


async def test_bytes_of_requests_and_answers_are_counted(tmp_path: Path) -> None:
    """Requests and answers count with the bytes that they have on the wire."""
    async with measured(tmp_path / "data") as watched:
        execution_id = await an_execution(watched.client)
        asked = GetAgentExecutionRequest(value=execution_id)
        answers = [await watched.client.queries.Get(asked) for _ in range(3)]
        page = await watched.read()
    get = f"{QUERIES}/Get"
    assert page("runstream_request_bytes_total", method=get) == 3 * asked.ByteSize()
    assert page("runstream_response_bytes_total", method=get) == sum(answer.ByteSize() for answer in answers)


async def test_a_call_is_in_flight_until_it_ends(tmp_path: Path) -> None:
    """A call that waits is counted as waiting; the end of it counts by its code, that of the client's leaving too."""
    async with measured(tmp_path / "data") as watched:
        execution_id = await an_execution(watched.client)
        stream = watched.client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
        await stream.read()
        watch = f"{QUERIES}/Watch"
        page = await watched.read()
        assert page.by("runstream_streams_open", "method") == {watch: 1}
        assert page("runstream_stream_messages_total", method=watch) == 1
        assert watch not in page.by("runstream_calls_total", "method")
        stream.cancel()
        page = await until(watched, lambda page: not page.by("runstream_streams_open", "method"))
        assert page("runstream_calls_total", method=watch, code="CANCELLED") == 1


async def until(watched: Measured, holds: object) -> Scrape:
    """Read the page again and again until something holds of it."""
    assert callable(holds)
    async with asyncio.timeout(30):
        while not holds(page := await watched.read()):
            pass
    return page


async def test_streams_count_what_they_deliver_and_how_far_they_were_behind(tmp_path: Path) -> None:
    """A stream that reads each commit at once was one behind each time; one that ends well ended OK."""
    async with measured(tmp_path / "data") as watched:
        execution_id = await a_running_execution(watched.client)
        stream = watched.client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2))
        await stream.initial_metadata()
        for number in range(1, 6):
            await watched.client.executions.UpdateStatus(token(execution_id, "x", number))
            await stream.read()
        page = await watched.read()
        assert page("runstream_stream_wakes_total") == 5
        assert page("runstream_stream_lag_revisions_count") == 5
        assert page("runstream_stream_lag_revisions_bucket", le="1.0") == 5
        assert page("runstream_stream_lag_slowest_revisions") == 0
        await watched.client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
        last = await stream.read()
        assert isinstance(last, ExecutionChange)
        assert last.terminal
        assert not isinstance(await stream.read(), ExecutionChange)
        page = await watched.read()
    watch = f"{QUERIES}/Watch"
    assert page("runstream_calls_total", method=watch, code="OK") == 1
    assert page("runstream_stream_messages_total", method=watch) == 6
    assert page("runstream_streams_open", method=watch) == 0
    assert page.by("runstream_call_seconds_count", "method").get(watch) is None


async def test_commits_are_counted_with_their_batches_and_bytes(tmp_path: Path) -> None:
    """Commands one after the other are a commit and a batch each; what changes nothing is none."""
    async with measured(tmp_path / "data") as watched:
        execution_id = await a_running_execution(watched.client)
        before = await watched.read()
        for number in range(1, 11):
            await watched.client.executions.UpdateStatus(token(execution_id, "x", number))
        await watched.client.executions.UpdateStatus(token(execution_id, "x", 10))
        after = await watched.read()
    assert before("runstream_commits_total") == 3
    for name in ("commits_total", "batch_transactions_count", "batch_transactions_sum", "sync_seconds_count"):
        assert after(f"runstream_{name}") - before(f"runstream_{name}") == 10
    assert after("runstream_batch_transactions_bucket", le="1.0") == 13
    assert after("runstream_commit_bytes_total") > before("runstream_commit_bytes_total") > 0
    assert after("runstream_sync_seconds_sum") > 0
    assert after("runstream_keys_in_flight") == after("runstream_write_failures_total") == 0
    assert after("runstream_disk_free_bytes") > 0


async def test_steps_are_counted_by_command(tmp_path: Path) -> None:
    """Each step of a command counts its runs, those that refuse too, and how long they took."""
    async with measured(tmp_path / "data") as watched:
        execution_id = await a_running_execution(watched.client)
        await refusal(watched.client.executions.UpdateStatus(delta(execution_id, attempt=7)))
        page = await watched.read()
    command = "AgentExecution.UpdateStatus"
    assert page("runstream_step_runs_total", command=command, step="CheckAttempt") == 2
    assert page("runstream_step_runs_total", command=command, step="Persist") == 1
    assert page("runstream_step_seconds_total", command=command, step="Persist") > 0


async def test_executions_are_counted_by_phase_over_a_restart(tmp_path: Path) -> None:
    """Those that live are counted by their phase, also after a restart; those that came into one since the start."""
    async with measured(tmp_path / "data") as watched:
        agent_id = await an_agent(watched.client)
        made = [await watched.client.executions.Create(execution(agent_id=agent_id)) for _ in range(5)]
        ids = [each.metadata.id for each in made]
        for execution_id in ids[:3]:
            await watched.client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
        await watched.client.executions.UpdateStatus(delta(ids[0], phase=EXECUTION_COMPLETED))
        await watched.client.executions.Delete(ResourceId(value=ids[4]))
        page = await watched.read()
    assert page.by("runstream_executions", "phase") == {"EXECUTION_PENDING": 1, "EXECUTION_IN_PROGRESS": 2}
    came = {"EXECUTION_PENDING": 5, "EXECUTION_IN_PROGRESS": 3, "EXECUTION_COMPLETED": 1}
    assert page.by("runstream_executions_entered_total", "phase") == came
    async with measured(tmp_path / "data") as watched:
        await watched.client.executions.UpdateStatus(delta(ids[1], phase=EXECUTION_COMPLETED))
        live = {"EXECUTION_PENDING": 1, "EXECUTION_IN_PROGRESS": 1}
        page = await until(watched, lambda page: page.by("runstream_executions", "phase") == live)
        assert page.by("runstream_executions_entered_total", "phase") == {"EXECUTION_COMPLETED": 1}


async def test_the_queue_tells_how_many_wait_and_how_long(tmp_path: Path) -> None:
    """What is PENDING waits in the queue; the age is that of the one that waits longest."""
    clock = FakeClock()
    async with measured(tmp_path / "data", clock) as watched:
        page = await watched.read()
        assert page("runstream_queue_oldest_seconds") == 0
        agent_id = await an_agent(watched.client)
        for _ in range(3):
            await watched.client.executions.Create(execution(agent_id=agent_id))
            clock.advance(5)
        page = await watched.read()
        assert page.by("runstream_queue_executions", "state") == {"waiting": 3}
        assert page("runstream_queue_oldest_seconds") == 15


async def test_leases_are_counted_as_they_begin_and_end(tmp_path: Path) -> None:
    """An assignment, a return and a loss count each; what runners offer and hold is told as it is."""
    clock = FakeClock()
    async with measured(tmp_path / "data", clock) as watched:
        agent_id = await an_agent(watched.client)
        async with attached(watched.client, capacity=4) as runner:
            await watched.client.executions.Create(execution(agent_id=agent_id))
            await runner.assignment()
            page = await watched.read()
            assert page("runstream_runners_attached") == 1
            assert page("runstream_runner_capacity") == 4
            assert page("runstream_runner_places_free") == 3
            assert page("runstream_leases_held") == 1
            assert page.by("runstream_leases_total", "step") == {"assigned": 1}
            await runner.detach()
            await runner.assignment()
            page = await watched.read()
            assert page.by("runstream_leases_total", "step") == {"assigned": 2, "returned": 1}
            clock.advance(16)
            page = await until(watched, lambda page: page("runstream_leases_total", step="lost") == 1)
            assert page("runstream_runners_lost_total") == 1
            assert page("runstream_leases_held") == 0
            assert page.by("runstream_queue_executions", "state") == {"delayed": 1}


async def test_folds_count_whether_they_were_kept(tmp_path: Path) -> None:
    """The first look at a state begins with the disk, the second goes on from what is kept."""
    async with measured(tmp_path / "data") as watched:
        execution_id = await an_execution(watched.client)
        for _ in range(3):
            await watched.client.queries.Get(GetAgentExecutionRequest(value=execution_id))
        page = await watched.read()
    assert page("runstream_fold_cache_misses_total") == 1
    assert page("runstream_fold_cache_hits_total") == 2
    assert page("runstream_fold_cache_executions") == 1
    assert page("runstream_fold_cache_bytes") > 0


async def test_labels_take_few_values(tmp_path: Path) -> None:
    """No id, organization or name of an agent is a label, whatever is called."""
    async with measured(tmp_path / "data") as watched:
        for name in ("alpha", "beta"):
            await an_execution(watched.client, agent=name, org="acme")
        await watched.client.queries.List(ListAgentExecutionsRequest(org="acme"))
        page = await watched.read()
    labels = {key for family in page.families.values() for sample in family.samples for key in sample.labels}
    assert labels == {"method", "code", "le", "command", "step", "phase", "state", "version", "python"}
    text = repr([sample.labels for family in page.families.values() for sample in family.samples])
    assert not any(secret in text for secret in ("aex_", "agt_", "alpha", "beta", "acme"))


async def test_the_table_of_metrics_is_whole(tmp_path: Path) -> None:
    """Every metric of the page stands in the table of the docs, with its type and labels, and nothing else does."""
    async with measured(tmp_path / "data") as watched:
        await a_running_execution(watched.client)
        page = await watched.read()
    served = {told_name(family.name, family.type): family.type for family in page.families.values()}
    table = r"^\| `((?:runstream|process)_\w+)` \| (\w+) \|([^|]*)\|"
    rows = re.findall(table, OPERATIONS.read_text(), re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == served
    for name, _, labels in rows:
        samples = page.families[name.removesuffix("_total") if name not in page.families else name].samples
        used = {label for sample in samples for label in sample.labels} - {"le"}
        assert used == set(re.findall(r"`(\w+)`", labels)) or not samples, name


def test_alerts_ask_for_what_there_is() -> None:
    """The examples are YAML, and every metric in them stands in the table."""
    text = OPERATIONS.read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert [list(yaml.safe_load(block)) for block in blocks] == [["scrape_configs"], ["groups"]]
    known = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    asked = set(re.findall(r"\b(?:runstream|process)_\w+", "".join(blocks)))
    assert {name.removesuffix("_bucket") for name in asked} <= known


def told_name(name: str, kind: str) -> str:
    """Return the name that queries use: that of a counter ends with ``_total``."""
    return f"{name}_total" if kind == "counter" else name
