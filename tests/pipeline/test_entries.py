from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.model.errors import ResourceExhausted
from runstream.pipeline.entries import MOST_ENTRIES, check_entries
from runstream.v1.agent_execution_pb2 import AgentExecution, AgentMessage, ToolCall
from tests.making import an_agent, an_execution, delta, execution, stored
from tests.serving import refusal, serving

if TYPE_CHECKING:
    from pathlib import Path


def test_entries_are_counted_wherever_they_stand() -> None:
    request = AgentExecution()
    request.metadata.labels["a"] = "b"
    request.status.messages.add(tool_calls=[ToolCall()] * (MOST_ENTRIES - 3))
    request.status.todos["one"].content = "do"
    check_entries(request)
    request.metadata.tags.append("one more")
    with pytest.raises(ResourceExhausted) as refused:
        check_entries(request)
    assert refused.value.reason == "TOO_MANY_ENTRIES"


def test_entries_of_structs_count_too() -> None:
    request = AgentExecution()
    numbers = request.spec.context.attributes.fields["numbers"].list_value
    for _ in range(MOST_ENTRIES):
        numbers.values.add(number_value=1)
    with pytest.raises(ResourceExhausted):
        check_entries(request)


async def test_a_small_request_of_countless_entries_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as running:
        execution_id = await an_execution(running.client)
        request = delta(execution_id)
        request.status.messages.extend([AgentMessage()] * (MOST_ENTRIES + 1))
        told = await refusal(running.client.executions.UpdateStatus(request))
        after = await stored(running.client, execution_id)
    assert told.reason == "TOO_MANY_ENTRIES"
    assert after.metadata.revision == 1


async def test_what_this_version_does_not_know_is_not_kept(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as running:
        request = execution(agent_id=await an_agent(running.client))
        unknown = AgentExecution.FromString(request.SerializeToString() + b"\xe2\x3f\x05hello")
        made = await running.client.executions.Create(unknown)
    assert b"hello" not in made.SerializeToString()
