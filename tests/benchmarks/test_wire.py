from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from benchmarks.resources import Resources, an_execution, text
from benchmarks.wire import Broken, Call, Connection, Messages, answer
from runstream.v1.agent_execution_pb2 import AgentExecution
from tests.making import an_agent, stored
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path


def test_messages_are_put_together_however_they_were_cut() -> None:
    wire = b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in (b"one", b"", b"three"))
    for size in range(1, len(wire) + 1):
        messages = Messages()
        pieces = [wire[place : place + size] for place in range(0, len(wire), size)]
        assert [each for piece in pieces for each in messages.take(piece)] == [b"one", b"", b"three"]


async def test_what_is_made_by_hand_is_what_every_client_sees(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        agent_id = await an_agent(running.client)

        def make() -> str:
            with Resources(running.server.address) as resources:
                execution_id = resources.at_work(agent_id)
                assert resources.revision(execution_id) == 2
            with closing(Connection(running.server.address)) as connection:
                update = AgentExecution.FromString(answer(connection, text(execution_id, 512)))
            assert update.metadata.revision == 3
            return execution_id

        execution_id = await asyncio.to_thread(make)
        execution = await stored(running.client, execution_id)
        assert execution.metadata.revision == 3
        assert set(execution.status.messages[0].content) == {"x"}
        assert execution.spec.message == an_execution(agent_id).spec.message


async def test_a_refused_call_is_no_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:

        def refused() -> None:
            connection = Connection(running.server.address)
            with closing(connection), pytest.raises(Broken):
                answer(connection, text("aex_00000000000000000000000000", 512))

        await asyncio.to_thread(refused)


@pytest.mark.parametrize("size", [160, 200, 256, 512, 4_096])
def test_a_request_has_the_size_that_is_told(size: int) -> None:
    made = text("aex_00000000000000000000000000", size)
    assert len(made.body) == size + len(b"\0") + 4


def test_a_request_that_does_not_fit_into_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="16379"):
        Call.of_bytes("/a.B/C", bytes(16_380))
