from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.model.merge import (
    REPLACEABLE_FIELDS,
    EntryIndex,
    Stamp,
    fold,
    fold_all,
    merge_basic,
    merge_status,
)
from runstream.model.views import basic_status
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    CONTROL_PAUSE,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    MESSAGE_AI,
    MESSAGE_HUMAN,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_RUNNING,
    AgentExecution,
    AgentExecutionSpec,
    AgentExecutionStatus,
    AgentMessage,
    ExecutionChange,
    ExecutionControl,
    ExecutionDeleted,
    TodoItem,
    ToolCall,
    Usage,
)
from runstream.v1.resource_pb2 import Audit, AuditActor, AuditInfo, ResourceMetadata
from tests.model.hostile_deltas import DELTAS, MASKS, SMALL, UNKNOWN_FIELD, logs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

STAMP = Stamp(revision=7, attempt=2, time="2026-01-31T12:00:00.000Z")
FAST = settings(max_examples=60, deadline=None)


def merged(*deltas: AgentExecutionStatus, stamp: Stamp = STAMP) -> AgentExecutionStatus:
    """Merge deltas into an empty status."""
    state = AgentExecutionStatus()
    for delta in deltas:
        merge_status(state, delta, stamp)
    return state


def folded(changes: Iterable[ExecutionChange]) -> AgentExecution:
    """Fold changes into a new execution, one by one, without an index."""
    execution = AgentExecution()
    for change in changes:
        fold(execution, change)
    return execution


def bits(message: Message) -> bytes:
    """Write a message so that equal ones are equal bytes."""
    return message.SerializeToString(deterministic=True)


def message_delta(**fields: Any) -> AgentExecutionStatus:  # noqa: ANN401
    """Make a delta of one message."""
    return AgentExecutionStatus(messages=[AgentMessage(**fields)])


def created() -> ExecutionChange:
    """Make the first change of an execution."""
    return ExecutionChange(
        revision=1,
        created=AgentExecution(
            api_version="runstream/v1",
            metadata=ResourceMetadata(id="aex_1", name="one", revision=1),
            spec=AgentExecutionSpec(message="do"),
            status=AgentExecutionStatus(phase=EXECUTION_PENDING),
        ),
    )


# -- singular fields and sub-messages ---------------------------------------------------------------


def test_a_set_singular_field_replaces_and_an_unset_one_leaves() -> None:
    """A delta changes the singular fields that it sets, and no other."""
    state = merged(
        AgentExecutionStatus(phase=EXECUTION_PENDING, error="old", reason="R"),
        AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, error="new"),
    )
    assert state == AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, error="new", reason="R")


def test_audit_trails_merge_but_times_and_actors_are_values() -> None:
    """A new time or actor takes nothing over from the one before, and who created stays."""
    by_old = AuditActor(id="ann", avatar="ann.png")
    before = AuditInfo(created_by=by_old, updated_by=by_old, updated_at=Timestamp(seconds=1, nanos=5), event="a")
    after = AuditInfo(updated_by=AuditActor(id="bob"), updated_at=Timestamp(seconds=2), event="b")
    state = merged(
        AgentExecutionStatus(audit=Audit(status_audit=before)),
        AgentExecutionStatus(audit=Audit(status_audit=after)),
    )
    assert state.audit.status_audit == AuditInfo(
        created_by=by_old, updated_by=AuditActor(id="bob"), updated_at=Timestamp(seconds=2), event="b"
    )


def test_a_struct_merges_per_key_and_a_key_may_change_its_type() -> None:
    """Keys of a struct are replaced one by one, whole, whatever they held."""
    first, second = message_delta(id="m"), message_delta(id="m")
    first.messages[0].metadata.update({"kept": 1, "switched": {"inner": True}})
    second.messages[0].metadata.update({"switched": ["now", "a list"], "nested": {"x": None}})
    metadata = merged(first, second).messages[0].metadata
    assert dict(metadata) == {
        "kept": 1,
        "switched": metadata["switched"],
        "nested": metadata["nested"],
    }
    assert list(metadata["switched"]) == ["now", "a list"]  # type: ignore[arg-type]


def test_an_empty_sub_message_of_the_delta_becomes_present() -> None:
    """Being there is what an empty sub-message says, and it takes nothing away."""
    state = merged(AgentExecutionStatus(audit=Audit(), tool_calls=[ToolCall(id="t", args=Struct())]))
    assert state.HasField("audit")
    assert state.tool_calls[0].HasField("args")
    full = AgentExecutionStatus(audit=Audit(status_audit=AuditInfo(event="kept")))
    assert merged(full, AgentExecutionStatus(audit=Audit())) == full


def test_control_is_replaced_whole_and_an_empty_one_clears_it() -> None:
    """Nothing of an earlier request is left in a later one; without an action, nothing is asked."""
    asked = AgentExecutionStatus(control=ExecutionControl(action=CONTROL_CANCEL, reason="why"))
    paused = AgentExecutionStatus(control=ExecutionControl(action=CONTROL_PAUSE))
    assert merged(asked, paused).control == ExecutionControl(action=CONTROL_PAUSE)
    cleared = merged(asked, AgentExecutionStatus(control=ExecutionControl()))
    assert not cleared.HasField("control")
    assert merged(asked, AgentExecutionStatus()).control.action == CONTROL_CANCEL


# -- keyed lists --------------------------------------------------------------------------------------


def test_a_known_id_merges_in_place_and_an_unknown_one_is_appended() -> None:
    """The order of a list is the order in which its entries were begun."""
    state = merged(
        AgentExecutionStatus(messages=[AgentMessage(id="a", content="1"), AgentMessage(id="b", content="2")]),
        AgentExecutionStatus(messages=[AgentMessage(id="c", content="3"), AgentMessage(id="a", type=MESSAGE_AI)]),
    )
    assert [(message.id, message.content) for message in state.messages] == [("a", "1"), ("b", "2"), ("c", "3")]
    assert state.messages[0].type == MESSAGE_AI


@pytest.mark.parametrize("name", ["messages", "tool_calls", "sub_agent_executions", "usage"])
def test_an_id_that_comes_twice_in_one_delta_is_one_entry(name: str) -> None:
    """A repeated id is merged in order and never makes a second entry."""
    delta = AgentExecutionStatus()
    entries = getattr(delta, name)
    for entry_id in ("a", "b", "a"):
        entries.add(id=entry_id)
    field = "model" if name == "usage" else "name" if name != "messages" else "content"
    setattr(entries[0], field, "first")
    setattr(entries[2], field, "last")
    found = [(entry.id, getattr(entry, field)) for entry in getattr(merged(delta), name)]
    assert found == [("a", "last"), ("b", "")]


def test_tool_calls_inside_a_message_are_keyed_too() -> None:
    """A nested tool call is updated in its place, and is not the status's of the same id."""
    state = merged(
        message_delta(id="m", tool_calls=[ToolCall(id="x", status=TOOL_CALL_RUNNING), ToolCall(id="y")]),
        message_delta(id="m", tool_calls=[ToolCall(id="x", status=TOOL_CALL_COMPLETED, result="ok")]),
        AgentExecutionStatus(tool_calls=[ToolCall(id="x", name="other")]),
    )
    first, second = state.messages[0].tool_calls
    assert (first.id, first.status, first.result, first.name) == ("x", TOOL_CALL_COMPLETED, "ok", "")
    assert second.id == "y"
    assert state.tool_calls[0].name == "other"


def test_a_new_entry_is_stamped_and_keeps_its_stamp() -> None:
    """Revision and attempt tell what began an entry; what a delta says about them is ignored."""
    lie = {"revision": 99, "attempt": 99}
    state = AgentExecutionStatus()
    for stamp in (STAMP, Stamp(8, 3, "later")):
        merge_status(
            state,
            AgentExecutionStatus(
                messages=[AgentMessage(id="m", tool_calls=[ToolCall(id="n", **lie)], **lie)],  # type: ignore[arg-type]
                tool_calls=[ToolCall(id="t", **lie)],  # type: ignore[arg-type]
            ),
            stamp,
        )
    begun: list[Any] = [state.messages[0], state.messages[0].tool_calls[0], state.tool_calls[0]]
    assert [(entry.revision, entry.attempt) for entry in begun] == [(7, 2)] * 3
    assert state.messages[0].timestamp == STAMP.time


def test_a_timestamp_given_by_the_runner_stays() -> None:
    """The time of the commit stands in only for a time that nobody gave."""
    assert merged(message_delta(id="m", timestamp="then")).messages[0].timestamp == "then"


def test_content_append_appends_and_is_never_kept() -> None:
    """Tokens come together in content, in order."""
    state = merged(*(message_delta(id="m", content_append=text) for text in ("a", "", "\u00e9", "c")))
    assert (state.messages[0].content, state.messages[0].content_append) == ("a\u00e9c", "")


def test_content_beside_content_append_replaces_first() -> None:
    """With both in one delta, the text is the new content and then what is appended."""
    state = merged(message_delta(id="m", content="old"), message_delta(id="m", content="new", content_append="!"))
    assert state.messages[0].content == "new!"


def test_todos_merge_per_key_and_their_id_is_the_key() -> None:
    """A todo that the delta does not name stays; one that it names keeps what the delta leaves out."""
    state = merged(
        AgentExecutionStatus(todos={"1": TodoItem(content="one", position=1), "2": TodoItem(content="two")}),
        AgentExecutionStatus(todos={"1": TodoItem(id="a lie", content="uno")}),
    )
    assert state.todos["1"] == TodoItem(id="1", content="uno", position=1)
    assert state.todos["2"] == TodoItem(id="2", content="two")


def test_unknown_fields_do_not_reach_the_state() -> None:
    """What is unknown to whoever merges is left out, so that it cannot pile up."""
    delta = message_delta(id="m")
    delta.messages[0].MergeFromString(UNKNOWN_FIELD)
    delta.MergeFromString(UNKNOWN_FIELD)
    assert UNKNOWN_FIELD not in merged(delta, delta).SerializeToString()


# -- replace ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REPLACEABLE_FIELDS))
def test_a_replaced_field_is_emptied_before_the_delta_is_merged(name: str) -> None:
    """Every replaceable field can be emptied, and takes what the delta has in its place."""
    full = AgentExecutionStatus(
        messages=[AgentMessage(id="a", content="a")],
        tool_calls=[ToolCall(id="a")],
        usage=[Usage(id="a")],
        todos={"a": TodoItem()},
        error="a",
        reason="a",
        callback_token=b"a",
    )
    full.sub_agent_executions.add(id="a")
    state, index = AgentExecutionStatus(), EntryIndex()
    merge_status(state, full, STAMP, index=index)
    merge_status(state, AgentExecutionStatus(), STAMP, [name], index)
    expected = merged(full)
    expected.ClearField(name)  # type: ignore[arg-type]
    assert state == expected
    merge_status(state, full, STAMP, [name], index)
    assert state == merged(full)


def test_a_field_that_cannot_be_replaced_is_refused_and_nothing_changes() -> None:
    """Output fields, the phase, paths and unknown names are no names to replace."""
    for name in ("phase", "attempt", "audit", "messages.content", "", "nothing"):
        state = AgentExecutionStatus(error="kept", phase=EXECUTION_PENDING)
        with pytest.raises(ValueError, match="Cannot be replaced"):
            merge_status(state, AgentExecutionStatus(error="new"), STAMP, ["error", name])
        assert state == AgentExecutionStatus(error="kept", phase=EXECUTION_PENDING)


def test_what_superseded_attempts_reported_for_themselves_leaves_the_state() -> None:
    """People's messages, executions of their own and what was spent stay; so does what newer attempts began."""
    state = AgentExecutionStatus()
    for attempt in (0, 1, 2):
        delta = AgentExecutionStatus(
            messages=[
                AgentMessage(id=f"said-{attempt}", type=MESSAGE_AI, content="x"),
                AgentMessage(id=f"asked-{attempt}", type=MESSAGE_HUMAN, content="y"),
            ],
            tool_calls=[ToolCall(id=f"call-{attempt}")],
            todos={f"todo-{attempt}": TodoItem()},
            usage=[Usage(id=f"usage-{attempt}")],
        )
        delta.sub_agent_executions.add(id=f"inner-{attempt}")
        delta.sub_agent_executions.add(id=f"outer-{attempt}", execution_id=f"aex-{attempt}")
        merge_status(state, delta, Stamp(attempt + 1, attempt, "now"))
    begun = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, attempt=2)
    merge_status(state, begun, Stamp(9, 2, "now", supersedes=1))
    assert [message.id for message in state.messages] == ["asked-0", "asked-1", "said-2", "asked-2"]
    assert [call.id for call in state.tool_calls] == ["call-2"]
    assert [sub.id for sub in state.sub_agent_executions] == ["outer-0", "outer-1", "inner-2", "outer-2"]
    assert not state.todos
    assert [usage.id for usage in state.usage] == ["usage-0", "usage-1", "usage-2"]
    assert (state.phase, state.attempt) == (EXECUTION_IN_PROGRESS, 2)


def test_an_entry_that_was_superseded_may_begin_anew() -> None:
    """The same id again is a new entry, of the new attempt, at the end, and none of the old text is in it."""
    changes = [
        created(),
        ExecutionChange(revision=2, attempt=1, status=message_delta(id="m", content_append="old")),
        ExecutionChange(revision=3, attempt=1, status=message_delta(id="n", type=MESSAGE_HUMAN, content="go on")),
        ExecutionChange(revision=4, attempt=2, status=message_delta(id="m", content_append="new"), supersedes=1),
    ]
    step_by_step, at_once = folded(changes), AgentExecution()
    fold_all(at_once, changes)
    assert bits(step_by_step) == bits(at_once)
    said = [(message.id, message.content, message.attempt, message.revision) for message in at_once.status.messages]
    assert said == [("n", "go on", 1, 3), ("m", "new", 2, 4)]


@FAST
@given(logs(), SMALL)
def test_after_a_supersession_nothing_of_the_attempts_is_left(changes: list[ExecutionChange], attempt: int) -> None:
    """Whatever was there, only what the rule keeps is of a superseded attempt."""
    state = folded(changes).status
    merge_status(state, AgentExecutionStatus(), Stamp(99, 9, "now", supersedes=attempt + 1))
    assert all(message.attempt > attempt + 1 or message.type == MESSAGE_HUMAN for message in state.messages)
    assert all(call.attempt > attempt + 1 for call in state.tool_calls)
    assert all(sub.attempt > attempt + 1 or sub.execution_id for sub in state.sub_agent_executions)
    assert not state.todos


# -- what holds for every delta -----------------------------------------------------------------------


@FAST
@given(logs())
def test_a_log_folds_the_same_from_every_snapshot(changes: list[ExecutionChange]) -> None:
    """fold(1..n) is fold(snapshot k, k+1..n), bit for bit, for every k, with the snapshot written and read."""
    whole = folded(changes)
    for k in range(1, len(changes) + 1):
        snapshot = AgentExecution.FromString(folded(changes[:k]).SerializeToString())
        restarted = folded([ExecutionChange(revision=k, snapshot=snapshot), *changes[k:]])
        assert bits(restarted) == bits(whole)


@FAST
@given(logs())
def test_index_and_batch_change_nothing_but_the_cost(changes: list[ExecutionChange]) -> None:
    """With an index, and all at once, a log folds to what it does step by step."""
    indexed, index = AgentExecution(), EntryIndex()
    for change in changes:
        fold(indexed, change, index)
    batched = AgentExecution()
    fold_all(batched, changes)
    halves, kept = AgentExecution(), EntryIndex()
    fold_all(halves, changes[:3], kept)
    fold_all(halves, changes[3:], kept)
    assert {bits(indexed), bits(batched), bits(halves)} == {bits(folded(changes))}


@FAST
@given(logs())
def test_folding_leaves_the_changes_as_they_are(changes: list[ExecutionChange]) -> None:
    """A change can be folded by any number of readers: nobody alters it, nobody shares its parts."""
    before = [bits(change) for change in changes]
    execution = AgentExecution()
    fold_all(execution, changes)
    execution.Clear()
    assert [bits(change) for change in changes] == before


@FAST
@given(logs())
def test_no_id_is_ever_in_a_list_twice(changes: list[ExecutionChange]) -> None:
    """Whatever a client sends, an id names one entry, a todo's id is its key, and content_append is empty."""
    status = folded(changes).status
    lists: list[Any] = [status.messages, status.tool_calls, status.sub_agent_executions, status.usage]
    lists += [message.tool_calls for message in status.messages]
    for entries in lists:
        ids = [entry.id for entry in entries]
        assert len(ids) == len(set(ids))
    assert all(todo.id == key for key, todo in status.todos.items())
    assert not any(message.content_append for message in status.messages)


@FAST
@given(DELTAS, DELTAS, MASKS)
def test_entries_keep_their_order(first: AgentExecutionStatus, second: AgentExecutionStatus, mask: list[str]) -> None:
    """Without a replacement, the ids of a list begin with those it had, in the same order."""
    state = merged(first)
    before = {name: [entry.id for entry in getattr(state, name)] for name in ("messages", "tool_calls", "usage")}
    merge_status(state, second, STAMP, mask)
    for name, ids in before.items():
        if name not in mask:
            assert [entry.id for entry in getattr(state, name)][: len(ids)] == ids


@FAST
@given(st.lists(st.tuples(DELTAS, MASKS, SMALL), max_size=4))
def test_the_basic_merge_says_what_the_whole_merge_says_without_the_lists(
    steps: list[tuple[AgentExecutionStatus, list[str], int]],
) -> None:
    """The head, which is all that most commands read, is the state that the log folds to, for whatever delta."""
    whole, head = AgentExecutionStatus(), AgentExecutionStatus()
    for revision, (delta, mask, supersedes) in enumerate(steps, 1):
        merge_status(whole, delta, Stamp(revision, 1, "now", supersedes), mask)
        merge_basic(head, delta, mask)
        assert head == basic_status(whole)


@given(DELTAS)
def test_a_repeated_delta_without_appended_text_changes_nothing(delta: AgentExecutionStatus) -> None:
    """Only content_append counts how often it comes."""
    for message in delta.messages:
        message.ClearField("content_append")
    assert bits(merged(delta)) == bits(merged(delta, delta))


def test_a_huge_delta_merges_in_a_time_that_grows_with_its_size() -> None:
    """No entry is searched for: 20,000 nested calls and as many todos, sent twice, are found by index."""
    delta = message_delta(id="m", tool_calls=[ToolCall(id=str(n)) for n in range(20_000)])
    for number in range(20_000):
        delta.todos[str(number)].position = number
    state, index = AgentExecutionStatus(), EntryIndex()
    for _ in range(2):
        merge_status(state, delta, STAMP, index=index)
    assert (len(state.messages[0].tool_calls), len(state.todos)) == (20_000, 20_000)


def test_every_field_of_a_status_has_a_rule() -> None:
    """A list or map that is added to the API is noticed here before it is merged wrongly."""
    seen: set[str] = set()

    def lists(message: Descriptor) -> Iterable[str]:
        if message.full_name.startswith("google.protobuf.") or message.full_name in seen:
            return
        seen.add(message.full_name)
        for field in message.fields:
            if field.is_repeated:
                yield f"{message.name}.{field.name}"
            if field.message_type is not None:
                yield from lists(field.message_type)

    assert set(lists(AgentExecutionStatus.DESCRIPTOR)) == {
        "AgentExecutionStatus.messages",
        "AgentExecutionStatus.tool_calls",
        "AgentExecutionStatus.sub_agent_executions",
        "AgentExecutionStatus.usage",
        "AgentExecutionStatus.todos",
        "AgentMessage.tool_calls",
    }


# -- the entry index ----------------------------------------------------------------------------------


def test_an_index_is_built_from_a_state_that_it_has_not_seen() -> None:
    """A new index fits any state, and one that is behind catches up."""
    state, index = merged(message_delta(id="a", content="1")), EntryIndex()
    merge_status(state, message_delta(id="a", content_append="2"), STAMP, index=index)
    state.messages.add(id="b", content="3")
    merge_status(state, message_delta(id="b", content_append="4"), STAMP, index=index)
    assert [message.content for message in state.messages] == ["12", "34"]


def test_an_index_counts_the_text_it_left_behind() -> None:
    """`stale_bytes` grows with each rewriting of a text, and not when many appends are written at once."""
    changes = [created()]
    changes += [ExecutionChange(revision=n, status=message_delta(id="m", content_append="x" * 10)) for n in (2, 3, 4)]
    one_by_one, at_once = EntryIndex(), EntryIndex()
    execution = AgentExecution()
    for change in changes:
        fold(execution, change, one_by_one)
    fold_all(AgentExecution(), changes, at_once)
    assert (one_by_one.stale_bytes, at_once.stale_bytes) == (0 + 10 + 20, 0)


def test_an_index_forgets_what_a_snapshot_replaced() -> None:
    """After a snapshot in the middle of a fold, entries are found where the snapshot has them."""
    execution, index = AgentExecution(), EntryIndex()
    other = merged(
        message_delta(id="b", content="b"), message_delta(id="a", content="a", tool_calls=[ToolCall(id="x")])
    )
    before = message_delta(id="a", content="old", tool_calls=[ToolCall(id="y"), ToolCall(id="x")])
    last = message_delta(id="a", content_append="+", tool_calls=[ToolCall(id="x", name="found")])
    for change in (
        created(),
        ExecutionChange(revision=2, status=before),
        ExecutionChange(revision=5, snapshot=AgentExecution(status=other)),
        ExecutionChange(revision=6, status=last),
    ):
        fold(execution, change, index)
    assert [message.content for message in execution.status.messages] == ["b", "a+"]
    assert [call.name for call in execution.status.messages[1].tool_calls] == ["found"]


# -- fold ---------------------------------------------------------------------------------------------


def test_created_and_snapshot_replace_all() -> None:
    """Nothing of an earlier state is left, whatever its revision was."""
    execution = folded([created(), ExecutionChange(revision=2, status=message_delta(id="m"))])
    fold(execution, ExecutionChange(revision=9, snapshot=AgentExecution(kind="k")))
    assert execution == AgentExecution(kind="k", metadata=ResourceMetadata(revision=9))


def test_a_status_change_stamps_with_revision_attempt_and_time() -> None:
    """The stamp is made of the change alone, to the millisecond."""
    change = ExecutionChange(
        revision=2,
        attempt=3,
        change_time=Timestamp(seconds=1_700_000_000, nanos=123_999_999),
        status=message_delta(id="m"),
    )
    message = folded([created(), change]).status.messages[0]
    assert (message.revision, message.attempt, message.timestamp) == (2, 3, "2023-11-14T22:13:20.123Z")


def test_updated_replaces_metadata_and_spec_and_keeps_the_status() -> None:
    """An update touches nothing of the status but the audit trail of the spec."""
    running = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, audit=Audit(status_audit=AuditInfo(event="s")))
    updated = AgentExecution(
        api_version="runstream/v1",
        kind="AgentExecution",
        metadata=ResourceMetadata(id="aex_1", labels={"a": "b"}),
        status=AgentExecutionStatus(phase=EXECUTION_PENDING, audit=Audit(spec_audit=AuditInfo(event="updated"))),
    )
    execution = folded(
        [created(), ExecutionChange(revision=2, status=running), ExecutionChange(revision=3, updated=updated)]
    )
    assert execution.metadata == ResourceMetadata(id="aex_1", labels={"a": "b"}, revision=3)
    assert not execution.HasField("spec")
    assert execution.status.phase == EXECUTION_IN_PROGRESS
    assert execution.status.audit == Audit(spec_audit=AuditInfo(event="updated"), status_audit=AuditInfo(event="s"))


def test_a_control_change_sets_the_control_and_one_without_action_clears_it() -> None:
    """What is asked of an execution is what was asked last."""
    asked = ExecutionControl(action=CONTROL_CANCEL, reason="why")
    execution = folded([created(), ExecutionChange(revision=2, control=asked)])
    assert execution.status.control == asked
    fold(execution, ExecutionChange(revision=3, control=ExecutionControl(reason="none")))
    assert not execution.status.HasField("control")


def test_deleted_changes_nothing_but_the_revision() -> None:
    """After the deletion, the execution is still known as it was last."""
    execution = folded([created(), ExecutionChange(revision=2, deleted=ExecutionDeleted())])
    expected = folded([created()])
    expected.metadata.revision = 2
    assert execution == expected


@pytest.mark.parametrize("revision", [-1, 0, 1, 3, 2**62])
def test_a_change_out_of_order_is_refused_and_nothing_changes(revision: int) -> None:
    """A gap or a repeat is never folded."""
    execution = folded([created()])
    with pytest.raises(ValueError, match="2 comes next"):
        fold(execution, ExecutionChange(revision=revision, status=message_delta(id="m")))
    assert execution == folded([created()])


def test_a_change_of_no_known_kind_is_refused() -> None:
    """Whoever is too old for a kind of change learns it, instead of reaching another state."""
    with pytest.raises(ValueError, match="no kind"):
        fold(folded([created()]), ExecutionChange(revision=2))


@pytest.mark.parametrize(
    "change",
    [
        ExecutionChange(revision=2, change_time=Timestamp(seconds=2**62), status=message_delta(id="m")),
        ExecutionChange(revision=2, status=message_delta(id="m"), replace_mask=["phase"]),
    ],
)
def test_a_change_that_cannot_be_folded_leaves_the_execution_as_it_was(change: ExecutionChange) -> None:
    """A bad time or a bad mask is refused before anything is touched."""
    execution = folded([created()])
    with pytest.raises(ValueError, match=r"seconds|replaced"):
        fold(execution, change)
    assert execution == folded([created()])


def test_a_batch_that_fails_leaves_the_fold_of_the_changes_before() -> None:
    """Text that was gathered is written even when a later change is refused."""
    good = [created(), ExecutionChange(revision=2, status=message_delta(id="m", content_append="text"))]
    execution = AgentExecution()
    with pytest.raises(ValueError, match="3 comes next"):
        fold_all(execution, [*good, ExecutionChange(revision=5, status=AgentExecutionStatus())])
    assert execution == folded(good)
