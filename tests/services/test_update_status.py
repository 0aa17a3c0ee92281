"""UpdateStatus: merging through the wire, sequences, two writers at once, and everything that is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    TODO_COMPLETED,
    TODO_PENDING,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_RUNNING,
    AgentExecutionStatus,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    AgentExecutionUpdateStatusInput,
    GetAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_UNSPECIFIED
from tests.making import (
    NOWHERE,
    a_running_execution,
    an_execution,
    an_execution_in,
    delta,
    stored,
    token,
)
from tests.serving import EXHAUSTED, INVALID, MISSING, PRECONDITION, Client, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

TERMINAL = (EXECUTION_COMPLETED, EXECUTION_FAILED, EXECUTION_CANCELLED, EXECUTION_TERMINATED)
MIB = 1 << 20


def full_delta(execution_id: str) -> AgentExecutionUpdateStatusInput:
    """A delta with an entry in every list."""
    request = delta(execution_id, phase=EXECUTION_IN_PROGRESS)
    request.status.messages.add(id="m1", type=MESSAGE_AI, content="hello")
    request.status.tool_calls.add(id="t1", name="read", status=TOOL_CALL_RUNNING)
    request.status.sub_agent_executions.add(id="s1", name="helper")
    request.status.todos["d1"].content = "look"
    request.status.usage.add(id="u1", input_tokens=7)
    return request


async def test_streamed_text_is_appended(client: Client) -> None:
    """Tokens sent one by one read as one text, and `content_append` is never part of the state."""
    execution_id = await a_running_execution(client)
    for text in ("Once ", "upon ", "a time"):
        await client.executions.UpdateStatus(token(execution_id, text))
    (message,) = (await stored(client, execution_id)).status.messages
    assert message.content == "Once upon a time"
    assert message.content_append == ""


async def test_content_replaces_what_was_streamed_and_takes_more(client: Client) -> None:
    """`content` replaces the text so far, and `content_append` of the same delta comes behind it."""
    execution_id = await a_running_execution(client)
    await client.executions.UpdateStatus(token(execution_id, "draft"))
    request = delta(execution_id)
    request.status.messages.add(id="m", content="final", content_append="!")
    answer = await client.executions.UpdateStatus(request)
    assert [message.content for message in answer.status.messages] == ["final!"]


async def test_a_known_entry_is_merged_in_its_place(client: Client) -> None:
    """Entries keep the order they were begun in; what a delta leaves out stays as it was."""
    execution_id = await a_running_execution(client)
    first = delta(execution_id)
    first.status.tool_calls.add(id="one", name="read", status=TOOL_CALL_RUNNING)
    first.status.tool_calls.add(id="two", name="list", status=TOOL_CALL_RUNNING)
    await client.executions.UpdateStatus(first)
    second = delta(execution_id)
    second.status.tool_calls.add(id="one", status=TOOL_CALL_COMPLETED, result="42")
    answer = await client.executions.UpdateStatus(second)
    told = [(call.id, call.name, call.status, call.result, call.revision) for call in answer.status.tool_calls]
    assert told == [
        ("one", "read", TOOL_CALL_COMPLETED, "42", 3),
        ("two", "list", TOOL_CALL_RUNNING, "", 3),
    ]


async def test_why_a_call_failed_and_whose_it_was_stay_as_reported(client: Client) -> None:
    """The stable reason and the call during which it was made are merged like everything else of a call."""
    execution_id = await a_running_execution(client)
    first, second = delta(execution_id), delta(execution_id)
    first.status.tool_calls.add(id="two", parent_call_id="one", status=TOOL_CALL_RUNNING)
    second.status.tool_calls.add(id="two", status=TOOL_CALL_FAILED, reason="TOOL_NOT_ALLOWED")
    for request in (first, second):
        await client.executions.UpdateStatus(request)
    (call,) = (await stored(client, execution_id)).status.tool_calls
    assert (call.status, call.reason, call.parent_call_id) == (TOOL_CALL_FAILED, "TOOL_NOT_ALLOWED", "one")


async def test_an_entry_without_an_id_is_given_one(client: Client) -> None:
    """Two nameless messages are two messages, each with an id of the server's, told in the answer."""
    execution_id = await a_running_execution(client)
    for _ in range(2):
        request = delta(execution_id)
        request.status.messages.add(content="same")
        await client.executions.UpdateStatus(request)
    messages = (await stored(client, execution_id)).status.messages
    assert [message.content for message in messages] == ["same", "same"]
    assert len({message.id for message in messages}) == 2
    assert all(message.id.startswith("msg_") for message in messages)


async def test_todos_merge_per_key(client: Client) -> None:
    """A todo is changed by its key, the others stay; its id is its key."""
    execution_id = await a_running_execution(client)
    first = delta(execution_id)
    first.status.todos["a"].content = "read"
    first.status.todos["a"].status = TODO_PENDING
    first.status.todos["b"].content = "write"
    await client.executions.UpdateStatus(first)
    second = delta(execution_id)
    second.status.todos["a"].status = TODO_COMPLETED
    todos = (await client.executions.UpdateStatus(second)).status.todos
    assert {key: (todo.id, todo.content, todo.status) for key, todo in todos.items()} == {
        "a": ("a", "read", TODO_COMPLETED),
        "b": ("b", "write", 0),
    }


@pytest.mark.parametrize("name", ["messages", "tool_calls", "sub_agent_executions", "todos", "usage"])
async def test_a_replaced_list_is_emptied_and_the_others_stay(client: Client, name: str) -> None:
    """A list that `replace_mask` names is emptied by a delta that holds nothing for it."""
    execution_id = await an_execution(client)
    before = await client.executions.UpdateStatus(full_delta(execution_id))
    answer = await client.executions.UpdateStatus(delta(execution_id, replace=(name,)))
    before.status.ClearField(name)  # type: ignore[arg-type]  # one of several fields
    before.status.audit.Clear()
    answer.status.audit.Clear()
    assert answer.status == before.status


async def test_a_replaced_list_takes_what_the_delta_holds(client: Client) -> None:
    """A list that `replace_mask` names is then what the delta says, once and in its order."""
    execution_id = await an_execution(client)
    await client.executions.UpdateStatus(full_delta(execution_id))
    request = delta(execution_id, replace=("messages",))
    request.status.messages.add(id="m2", content="new")
    request.status.messages.add(id="m1", content="back")
    await client.executions.UpdateStatus(request)
    messages = (await stored(client, execution_id)).status.messages
    assert [(message.id, message.content) for message in messages] == [("m2", "new"), ("m1", "back")]


async def test_a_text_can_be_replaced_by_nothing(client: Client) -> None:
    """`error`, `reason` and `callback_token` can be emptied by `replace_mask`, in both views."""
    execution_id = await a_running_execution(client)
    status = AgentExecutionStatus(error="hm", reason="SLOW", callback_token=b"t")
    await client.executions.UpdateStatus(delta(execution_id, status))
    emptied = delta(execution_id, replace=("error", "reason", "callback_token"))
    await client.executions.UpdateStatus(emptied)
    for view in (RESOURCE_VIEW_UNSPECIFIED, RESOURCE_VIEW_BASIC):
        told = await client.queries.Get(GetAgentExecutionRequest(value=execution_id, view=view))
        assert (told.status.error, told.status.reason, told.status.callback_token) == ("", "", b"")


async def test_what_the_server_says_is_not_taken_from_a_delta(client: Client) -> None:
    """Output fields of a delta are ignored: times, attempt, control, audit, and those of entries."""
    execution_id = await a_running_execution(client)
    before = await stored(client, execution_id)
    request = delta(execution_id)
    request.status.started_at = request.status.completed_at = "2001-01-01T00:00:00.000Z"
    request.status.attempt = 9
    request.status.control.action = CONTROL_CANCEL
    request.status.audit.spec_audit.created_by.id = "mallory"
    request.status.messages.add(id="m", revision=99, attempt=99)
    answer = await client.executions.UpdateStatus(request)
    assert answer.status.started_at == before.status.started_at
    assert answer.status.completed_at == ""
    assert answer.status.attempt == 0
    assert not answer.status.HasField("control")
    assert answer.status.audit.spec_audit == before.status.audit.spec_audit
    assert [(message.revision, message.attempt) for message in answer.status.messages] == [(3, 0)]


async def test_basic_leaves_the_lists_out_and_full_is_the_default(client: Client) -> None:
    """The view BASIC answers without any list; every other view is the state whole."""
    execution_id = await an_execution(client)
    request = full_delta(execution_id)
    whole = await client.executions.UpdateStatus(request)
    request.view = RESOURCE_VIEW_BASIC
    basic = await client.executions.UpdateStatus(request)
    for name in ("messages", "tool_calls", "sub_agent_executions", "todos", "usage"):
        assert len(getattr(whole.status, name)) == 1
        assert len(getattr(basic.status, name)) == 0
    assert (basic.metadata.revision, basic.status.phase) == (3, EXECUTION_IN_PROGRESS)
    assert basic.spec == whole.spec


async def test_the_answer_is_what_get_tells(client: Client) -> None:
    """The answer of an update is the stored state, at the revision it made."""
    execution_id = await an_execution(client)
    answer = await client.executions.UpdateStatus(full_delta(execution_id))
    assert answer.metadata.revision == 2
    assert await stored(client, execution_id) == answer


async def test_a_repeated_sequence_changes_nothing(client: Client) -> None:
    """A repeat of the last sequence, and a lower one, add no revision and answer with the state now."""
    execution_id = await a_running_execution(client)
    await client.executions.UpdateStatus(token(execution_id, "a", sequence=1))
    await client.executions.UpdateStatus(token(execution_id, "b", sequence=2))
    for sequence in (2, 1):
        answer = await client.executions.UpdateStatus(token(execution_id, "c", sequence=sequence))
        assert answer.metadata.revision == 4
    assert (await stored(client, execution_id)).status.messages[0].content == "ab"


async def test_a_repeat_answers_in_the_view_it_asks_for(client: Client) -> None:
    """A repeat without a view is answered whole, as the first call would have been."""
    execution_id = await a_running_execution(client)
    first = await client.executions.UpdateStatus(delta_with_text(execution_id, sequence=1))
    again = await client.executions.UpdateStatus(delta_with_text(execution_id, sequence=1))
    assert again == first
    assert again.status.messages[0].content == "x"


def delta_with_text(execution_id: str, sequence: int) -> AgentExecutionUpdateStatusInput:
    """A delta with a message, answered in the default view."""
    request = delta(execution_id, sequence=sequence)
    request.status.messages.add(id="m", content_append="x")
    return request


async def test_a_repeat_after_the_terminal_update_is_harmless(client: Client) -> None:
    """A runner that has not heard the answer to its last update sends it again and gets the terminal state."""
    execution_id = await a_running_execution(client)
    last = delta(execution_id, phase=EXECUTION_COMPLETED, sequence=1)
    first = await client.executions.UpdateStatus(last)
    again = await client.executions.UpdateStatus(last)
    assert again == first
    told = await refusal(client.executions.UpdateStatus(delta(execution_id, sequence=2)))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")


async def test_a_gap_in_the_sequence_is_accepted(client: Client) -> None:
    """Numbers may be left out; those below the highest are repeats from then on."""
    execution_id = await a_running_execution(client)
    await client.executions.UpdateStatus(token(execution_id, "a", sequence=10))
    late = await client.executions.UpdateStatus(token(execution_id, "b", sequence=5))
    after = await client.executions.UpdateStatus(token(execution_id, "c", sequence=11))
    assert (late.metadata.revision, after.metadata.revision) == (3, 4)
    assert (await stored(client, execution_id)).status.messages[0].content == "ac"


async def test_an_unnumbered_update_is_always_taken(client: Client) -> None:
    """An update without a sequence is no repeat of anything, and does not reset the numbering."""
    execution_id = await a_running_execution(client)
    await client.executions.UpdateStatus(token(execution_id, "a", sequence=3))
    await client.executions.UpdateStatus(token(execution_id, "b"))
    await client.executions.UpdateStatus(token(execution_id, "c", sequence=3))
    assert (await stored(client, execution_id)).status.messages[0].content == "ab"


async def test_twenty_repeats_at_once_count_once(client: Client) -> None:
    """The same sequence sent many times at once is one revision, and every caller is answered with it."""
    execution_id = await a_running_execution(client)
    answers = await asyncio.gather(
        *(client.executions.UpdateStatus(token(execution_id, "x", sequence=1)) for _ in range(20))
    )
    assert {answer.metadata.revision for answer in answers} == {3}
    assert (await stored(client, execution_id)).status.messages[0].content == "x"


async def test_a_hundred_updates_at_once_all_land(client: Client) -> None:
    """No update of concurrent callers is lost: each has a revision of its own, without a gap."""
    execution_id = await a_running_execution(client)
    requests = [token(execution_id, f"<{number}>") for number in range(100)]
    answers = await asyncio.gather(*(client.executions.UpdateStatus(request) for request in requests))
    state = await stored(client, execution_id)
    text = state.status.messages[0].content
    assert state.metadata.revision == 102
    assert all(2 < answer.metadata.revision <= 102 for answer in answers)
    assert sorted(text.strip("<>").split("><"), key=int) == [str(number) for number in range(100)]
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    watch = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
    changes = [change async for change in watch]
    assert [change.revision for change in changes] == list(range(1, 104))
    streamed = [change.status.messages[0].content_append for change in changes[2:102]]
    assert "".join(streamed) == text


def with_phase(phase: int) -> Callable[[str], AgentExecutionUpdateStatusInput]:
    """Make a request for a phase, which may be unknown."""

    def make(execution_id: str) -> AgentExecutionUpdateStatusInput:
        request = delta(execution_id)
        request.status.phase = phase  # type: ignore[assignment]  # any number
        return request

    return make


def with_unknown_entry_values(execution_id: str) -> AgentExecutionUpdateStatusInput:
    """A delta with an unknown enum value in every kind of entry."""
    request = delta(execution_id)
    status = request.status
    status.messages.add(id="m", type=77)
    status.messages[0].tool_calls.add(id="n", status=77)
    status.tool_calls.add(id="t", status=77)
    status.sub_agent_executions.add(id="s", status=77)
    status.todos["d"].status = 77  # type: ignore[assignment]
    return request


def with_a_view_unknown(execution_id: str) -> AgentExecutionUpdateStatusInput:
    """A delta to be answered in a view there is not."""
    request = delta(execution_id)
    request.view = 9  # type: ignore[assignment]
    return request


def too_large(execution_id: str) -> AgentExecutionUpdateStatusInput:
    """A delta of a little more than 4 MiB."""
    request = delta(execution_id)
    request.status.messages.add(id="m", content="x" * (4 * MIB))
    return request


BAD = {
    "an unknown phase": (with_phase(77), INVALID, "INVALID_FIELDS", {"status.phase"}),
    "a negative phase": (with_phase(-1), INVALID, "INVALID_FIELDS", {"status.phase"}),
    "unknown values in entries": (
        with_unknown_entry_values,
        INVALID,
        "INVALID_FIELDS",
        {
            "status.messages[0].type",
            "status.messages[0].tool_calls[0].status",
            "status.tool_calls[0].status",
            "status.sub_agent_executions[0].status",
            'status.todos["d"].status',
        },
    ),
    "an unknown view": (with_a_view_unknown, INVALID, "INVALID_FIELDS", {"view"}),
    "a client that queues it again": (with_phase(EXECUTION_PENDING), PRECONDITION, "INVALID_TRANSITION", set()),
    "a delta of more than 4 MiB": (too_large, EXHAUSTED, "STATUS_DELTA_TOO_LARGE", {"status"}),
    "an attempt that is not the current one": (
        lambda execution_id: delta(execution_id, phase=EXECUTION_COMPLETED, attempt=1),
        PRECONDITION,
        "STALE_ATTEMPT",
        set(),
    ),
    "no status": (
        lambda execution_id: AgentExecutionUpdateStatusInput(execution_id=execution_id),
        INVALID,
        "INVALID_FIELDS",
        {"status"},
    ),
    "a field that cannot be replaced": (
        lambda execution_id: delta(execution_id, replace=("phase",)),
        INVALID,
        "INVALID_FIELDS",
        {"replace_mask"},
    ),
    "a part of a list to be replaced": (
        lambda execution_id: delta(execution_id, replace=("messages.content",)),
        INVALID,
        "INVALID_FIELDS",
        {"replace_mask"},
    ),
    "a negative sequence": (
        lambda execution_id: delta(execution_id, sequence=-1),
        INVALID,
        "INVALID_FIELDS",
        {"sequence"},
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_refused_stores_nothing(client: Client, case: str) -> None:
    """Every wrong update has an error of its own and leaves the execution as it was."""
    make, code, reason, fields = BAD[case]
    execution_id = await a_running_execution(client)
    before = await stored(client, execution_id)
    told = await refusal(client.executions.UpdateStatus(make(execution_id)))
    assert (told.code, told.reason, set(told.fields)) == (code, reason, fields)
    assert await stored(client, execution_id) == before


async def test_a_delta_of_exactly_4_mib_is_taken(client: Client) -> None:
    """The limit of a delta is 4 MiB, and that much is taken."""
    execution_id = await a_running_execution(client)
    request = delta(execution_id)
    request.view = RESOURCE_VIEW_BASIC
    message = request.status.messages.add(id="m", content="x" * (4 * MIB))
    message.content = message.content[: 4 * MIB - (request.status.ByteSize() - 4 * MIB)]
    assert request.status.ByteSize() == 4 * MIB
    answer = await client.executions.UpdateStatus(request)
    assert answer.metadata.revision == 3


async def test_a_message_larger_than_the_server_takes_is_refused(client: Client) -> None:
    """A request beyond the message size of the settings does not reach the service, and nothing is stored."""
    execution_id = await a_running_execution(client)
    before = await stored(client, execution_id)
    request = delta(execution_id)
    request.status.messages.add(id="m", content="x" * (9 * MIB))
    told = await refusal(client.executions.UpdateStatus(request))
    assert told.code == EXHAUSTED
    assert str(request.ByteSize()) in told.message
    assert str(8 * MIB) in told.message
    assert await stored(client, execution_id) == before


async def test_an_unknown_execution_is_not_found(client: Client) -> None:
    """A status for an execution that never was is NOT_FOUND."""
    told = await refusal(client.executions.UpdateStatus(delta(f"aex_{NOWHERE}")))
    assert (told.code, told.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")
    assert told.metadata == {"id": f"aex_{NOWHERE}"}


@pytest.mark.parametrize("phase", TERMINAL)
@pytest.mark.parametrize("new", [0, EXECUTION_IN_PROGRESS, EXECUTION_COMPLETED])
async def test_nothing_is_written_to_a_finished_execution(client: Client, phase: int, new: int) -> None:
    """A terminal execution takes no status, not even its own phase again, and the error names the phase."""
    execution_id = await an_execution_in(client, ExecutionPhase.ValueType(phase))
    before = await stored(client, execution_id)
    request = with_phase(new)(execution_id)
    request.status.error = "too late"
    told = await refusal(client.executions.UpdateStatus(request))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
    assert told.metadata["phase"] == ExecutionPhase.Name(ExecutionPhase.ValueType(phase))
    assert await stored(client, execution_id) == before


@pytest.mark.parametrize(
    ("phase", "new", "code"),
    [
        (EXECUTION_PENDING, EXECUTION_WAITING_FOR_INPUT, PRECONDITION),
        (EXECUTION_PENDING, EXECUTION_WAITING_FOR_APPROVAL, PRECONDITION),
        (EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT, PRECONDITION),
        (EXECUTION_WAITING_FOR_INPUT, EXECUTION_PENDING, PRECONDITION),
        (EXECUTION_PAUSED, EXECUTION_COMPLETED, PRECONDITION),
    ],
)
async def test_a_bad_transition_names_both_phases(client: Client, phase: int, new: int, code: grpc.StatusCode) -> None:
    """A transition that the table does not allow is refused, naming both phases; nothing is stored."""
    execution_id = await an_execution_in(client, ExecutionPhase.ValueType(phase))
    before = await stored(client, execution_id)
    told = await refusal(client.executions.UpdateStatus(with_phase(new)(execution_id)))
    names = [ExecutionPhase.Name(ExecutionPhase.ValueType(number)) for number in (phase, new)]
    assert (told.code, told.reason) == (code, "INVALID_TRANSITION")
    assert [told.metadata["phase"], told.metadata["requested_phase"]] == names
    assert all(name in told.message for name in names)
    assert await stored(client, execution_id) == before


async def test_the_same_phase_again_is_no_transition(client: Client) -> None:
    """A runner may repeat the phase it is in with every delta."""
    execution_id = await a_running_execution(client)
    answer = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
    assert answer.metadata.revision == 3
