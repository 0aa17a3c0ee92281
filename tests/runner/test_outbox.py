"""The outbox against a real server: what is reported arrives once, in order, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from runstream.runner.calls import open_channel, until_answered
from runstream.runner.errors import ReportClosed, ReportRefused
from runstream.runner.outbox import FLUSH_BYTES, MOST_UNSENT, Outbox
from runstream.runner.refusals import Refusal
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_WAITING_FOR_INPUT,
    TOOL_CALL_RUNNING,
    AgentExecution,
    AgentExecutionStatus,
    AgentMessage,
    ToolCall,
    Usage,
)
from runstream.v1.agent_execution_service_pb2 import (
    AgentExecutionUpdateStatusInput,
    SubmitInputInput,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.agent_execution_service_pb2_grpc import AgentExecutionCommandControllerStub
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC
from tests.making import a_running_execution, stored
from tests.process import ROUNDS, server_process
from tests.runner.severed import path_to
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from runstream.v1.agent_execution_pb2 import ExecutionChange
    from tests.serving import Client


@asynccontextmanager
async def reporting(address: str, execution_id: str) -> AsyncIterator[Outbox]:
    """An outbox that reports to an execution that no runner holds."""
    async with open_channel(address) as channel:
        stub = AgentExecutionCommandControllerStub(channel)

        async def send(delta: AgentExecutionStatus, sequence: int, replace: Sequence[str]) -> AgentExecution:
            request = AgentExecutionUpdateStatusInput(
                execution_id=execution_id, status=delta, sequence=sequence, view=RESOURCE_VIEW_BASIC
            )
            request.replace_mask.paths.extend(replace)
            return await until_answered(stub.UpdateStatus, request)

        outbox = Outbox(send)
        sending = asyncio.create_task(outbox.run())
        try:
            yield outbox
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


def text(piece: str, message: str = "m") -> AgentMessage:
    """A piece of a message."""
    return AgentMessage(id=message, content_append=piece)


def usage(number: int) -> AgentExecutionStatus:
    """A delta of its own."""
    return AgentExecutionStatus(usage=[Usage(id=str(number), input_tokens=number)])


async def changes_of(client: Client, execution_id: str) -> list[ExecutionChange]:
    """The log of an execution after its first two changes, up to the newest."""
    newest = (await stored(client, execution_id)).metadata.revision
    found = []
    async for change in client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2)):
        found.append(change)
        if change.revision == newest:
            break
    return found


async def test_text_is_gathered_and_sent_before_what_comes_after_it(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        async with reporting(served.server.address, execution_id) as outbox:
            await outbox.append(text("a"))
            await outbox.append(text("b", "n"))
            await outbox.append(text("c"))
            await outbox.put(usage(1))
            await outbox.append(text("d"))
            await outbox.flush()
            changes = await changes_of(served.client, execution_id)
    told = [[(m.id, m.content_append) for m in change.status.messages] for change in changes]
    assert told == [[("m", "ac"), ("n", "b")], [], [("m", "d")]]


async def test_text_is_sent_by_itself(tmp_path: Path) -> None:
    """Without a flush, and without anything after it."""
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        watch = served.client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2))
        changes = aiter(watch)
        async with reporting(served.server.address, execution_id) as outbox:
            await outbox.append(text("a"))
            assert (await anext(changes)).status.messages[0].content_append == "a"
            await outbox.append(text("x" * FLUSH_BYTES))
            assert len((await anext(changes)).status.messages[0].content_append) == FLUSH_BYTES


async def test_the_last_text_goes_with_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        async with reporting(served.server.address, execution_id) as outbox:
            await outbox.append(text("bye"))
            await outbox.finish(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
        state = await stored(served.client, execution_id)
    assert state.metadata.revision == 3
    assert state.status.messages[0].content == "bye"


async def test_a_flush_without_anything_to_send_returns(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        async with reporting(served.server.address, execution_id) as outbox:
            await outbox.flush()


async def test_a_text_in_place_of_an_earlier_one_is_gathered_with_what_follows(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        async with reporting(served.server.address, execution_id) as outbox:
            await outbox.append(text("old"))
            await outbox.append(AgentMessage(id="m", content="new"))
            await outbox.append(text("er"))
            await outbox.flush()
        assert (await stored(served.client, execution_id)).status.messages[0].content == "newer"


async def test_reports_wait_while_too_much_is_unsent(tmp_path: Path) -> None:
    """And go on when the server does."""
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        awake, asked = asyncio.Event(), asyncio.Event()

        async def send(delta: AgentExecutionStatus, sequence: int, _: Sequence[str]) -> AgentExecution:
            asked.set()
            await awake.wait()
            request = AgentExecutionUpdateStatusInput(execution_id=execution_id, status=delta, sequence=sequence)
            return await served.client.executions.UpdateStatus(request)

        outbox = Outbox(send)
        sending = asyncio.create_task(outbox.run())
        piece = "x" * (MOST_UNSENT // 4)
        for _ in range(4):
            await outbox.append(text(piece))
        waiting = asyncio.create_task(outbox.append(text("more")))
        await asked.wait()
        assert not waiting.done()
        awake.set()
        await waiting
        await outbox.flush()
        sending.cancel()
        assert (await stored(served.client, execution_id)).status.messages[0].content == piece * 4 + "more"


async def test_a_refused_delta_is_told_to_who_waits_for_it_else_to_all_who_report_later(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        wrong = AgentExecutionStatus(tool_calls=[ToolCall(id="x" * 300)])
        async with reporting(served.server.address, execution_id) as outbox:
            with pytest.raises(ReportRefused, match="tool_calls"):
                await outbox.record(wrong)
            await outbox.put(usage(1))
            await outbox.flush()
            outbox.post(wrong)
            with pytest.raises(ReportRefused):
                await outbox.flush()
            with pytest.raises(ReportRefused):
                await outbox.append(text("a"))
            with pytest.raises(ReportRefused):
                await outbox.finish(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
            await outbox.finish(AgentExecutionStatus(phase=EXECUTION_FAILED))
        state = await stored(served.client, execution_id)
    assert (len(state.status.usage), state.status.phase) == (1, EXECUTION_FAILED)


async def test_an_execution_that_is_lost_closes_the_outbox(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        async with open_channel(served.server.address) as channel:
            stub = AgentExecutionCommandControllerStub(channel)

            async def send(delta: AgentExecutionStatus, sequence: int, _: Sequence[str]) -> AgentExecution:
                request = AgentExecutionUpdateStatusInput(execution_id=execution_id, status=delta, sequence=sequence)
                return await until_answered(stub.UpdateStatus, request)

            outbox = Outbox(send)
            await served.client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
            sending = asyncio.create_task(outbox.run())
            with pytest.raises(ReportClosed):
                await outbox.record(usage(1))
            with pytest.raises(Refusal) as refused:
                await sending
            assert refused.value.reason == "EXECUTION_TERMINAL"
            with pytest.raises(ReportClosed):
                await outbox.append(text("a"))
            outbox.post(usage(2))


async def test_the_receipt_of_a_question_lets_its_answer_be_told_from_earlier_ones(tmp_path: Path) -> None:
    """Even when the person answers before the runner has heard that the question was taken."""
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
        async with open_channel(served.server.address) as channel:
            stub = AgentExecutionCommandControllerStub(channel)

            async def send(delta: AgentExecutionStatus, sequence: int, _: Sequence[str]) -> AgentExecution:
                request = AgentExecutionUpdateStatusInput(execution_id=execution_id, status=delta, sequence=sequence)
                await stub.UpdateStatus(request)
                # Its answer is lost, and somebody is quick.
                if delta.phase == EXECUTION_WAITING_FOR_INPUT:
                    await served.client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="x"))
                return await stub.UpdateStatus(request)

            outbox = Outbox(send, revision=2)
            sending = asyncio.create_task(outbox.run())
            receipt = await outbox.record(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_INPUT))
            sending.cancel()
        answered = (await stored(served.client, execution_id)).status.messages[0].revision
    assert receipt.before < answered
    assert receipt.answer.metadata.revision >= answered


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
async def test_everything_arrives_once_and_in_order_over_connections_that_break(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    breaks = iter([random_.randrange(200, 20_000) for _ in range(12)])
    async with (
        serving(tmp_path / "data") as served,
        path_to(served.server.address, breaks) as path,
    ):
        execution_id = await a_running_execution(served.client)
        async with reporting(path.address, execution_id) as outbox:
            reported = Reported()
            await reported.report(outbox, random_)
            await outbox.finish(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
        await reported.expect(served.client, execution_id)
    assert path.cuts > 1


async def test_everything_arrives_once_and_in_order_over_a_server_that_is_killed(tmp_path: Path) -> None:
    random_ = random.Random(7)
    async with server_process(tmp_path / "data") as server, server.client() as client:
        execution_id = await a_running_execution(client)
        async with reporting(server.address, execution_id) as outbox:
            reported = Reported()
            for _ in range(3):
                await reported.report(outbox, random_)
                reporting_on = asyncio.create_task(reported.report(outbox, random_))
                await server.kill9()
                await server.start()
                await reporting_on
            await outbox.finish(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
        await reported.expect(client, execution_id)


class Reported:
    """What was reported: the text, and the marks of the deltas of their own."""

    def __init__(self) -> None:
        self.text = ""
        self.marks: list[str] = []

    async def report(self, outbox: Outbox, random_: random.Random) -> None:
        """Report text and deltas of their own, some of which are waited for."""
        for _ in range(150):
            mark = f"<{random_.randrange(1_000_000)}>"
            chance = random_.random()
            if chance < 0.8:
                piece = mark * random_.randrange(1, 60)
                self.text += piece
                await outbox.append(text(piece))
                continue
            self.text += mark
            self.marks.append(mark)
            call = ToolCall(id=mark, status=TOOL_CALL_RUNNING)
            delta = AgentExecutionStatus(messages=[text(mark)], tool_calls=[call])
            await (outbox.record(delta) if chance > 0.95 else outbox.put(delta))

    async def expect(self, client: Client, execution_id: str) -> None:
        """Check that the execution holds all of it once, in order."""
        state = await stored(client, execution_id)
        changes = await changes_of(client, execution_id)
        assert state.status.phase == EXECUTION_COMPLETED
        deltas = [change.status for change in changes if not change.terminal]
        assert [call.id for delta in deltas for call in delta.tool_calls] == self.marks
        assert state.status.messages[0].content == self.text
