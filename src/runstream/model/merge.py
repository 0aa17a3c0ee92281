"""Merge: how a delta changes a status, and how changes fold into an execution.

These rules are the reference for clients in every language. Whoever applies them to the same
changes reaches the same state, bit for bit.

A delta is an `AgentExecutionStatus` that holds only what is new. It is *set* in a field whose value
is not the default, or in a sub-message that is present. Merging goes in these steps:

0. **Supersede.** When the change's `supersedes` is n > 0, what attempts up to n reported for
   themselves leaves the state: of `messages`, `tool_calls` and `sub_agent_executions` the entries
   whose `attempt` is at most n, and all `todos`. What is not the attempt's own stays: messages of
   type HUMAN, sub-agents with an `execution_id`, `usage`. The rest keeps its order.
1. **Replace.** The fields named by the change's `replace_mask` are cleared in the state. These can
   be named: `REPLACEABLE_FIELDS`, and `completed_at`, by the server alone.
2. **Singular fields.** A set field of the delta replaces that of the state. An unset one leaves it,
   so 0, "" and false cannot be written over something else.
3. **Sub-messages** merge field by field, by rule 2; one that is present but empty becomes present.
   These are values, and replaced whole: `Timestamp`, `Duration`, `AuditActor`, `ToolCallApproval`
   (what is asked anew has no decision yet). A `Struct` merges per key: the value of a key in the
   delta replaces the value of that key, whatever type either has; a struct inside a struct is such
   a value.
4. **`control`**, when present, replaces whole; one with no action clears it.
5. **Keyed lists**, which are `messages`, `tool_calls`, `sub_agent_executions`, `usage`, and
   `tool_calls` inside a message: for each entry of the delta, in order,
   - the entry of the same `id` in the state takes the fields by rules 2 and 3 and keeps its place;
   - without one, an empty entry with this `id` is appended and takes the fields. It gets the
     change's `revision` and `attempt` (`usage` has none), and a message that then has no
     `timestamp` gets the time of the change.
   So an `id` that comes twice in a delta is one entry. An empty `id` is an id like any other; the
   server gives ids before it commits. The `revision` and `attempt` of a delta's entry are ignored:
   they tell what began the entry. Ids of tool calls inside a message are apart from those of other
   messages and of the status.
6. **`content_append`** of a message is appended to `content`, after the delta's `content`, if set,
   has replaced it. It is never part of the state.
7. **`todos`** merge per key by rule 2; the `id` of a todo is its key.
8. Fields that are unknown to whoever merges are ignored in a status, its entries and sub-messages.

A change folds into an execution by its kind, and `metadata.revision` becomes its `revision`:

- `snapshot` and `created` replace the execution whole.
- `status` merges as above, stamped with the change's `revision`, `attempt` and `change_time`, the
  latter in RFC 3339, UTC, cut to milliseconds.
- `updated` replaces `api_version`, `kind`, `metadata` and `spec`; of its status, it carries
  `audit.spec_audit` alone, which replaces that of the execution if present.
- `control` replaces `status.control`; one with no action clears it.
- `deleted` changes nothing.

Every kind but `snapshot` and `created` must be of the revision after the execution's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runstream.model.deltas import normalise_delta, settle
from runstream.model.entry_index import EntryIndex
from runstream.model.times import to_datetime, to_rfc3339
from runstream.model.views import LIST_FIELDS
from runstream.v1.agent_execution_pb2 import MESSAGE_HUMAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Literal

    from google.protobuf.message import Message

    from runstream.model.entry_index import Positions
    from runstream.v1.agent_execution_pb2 import (
        AgentExecution,
        AgentExecutionStatus,
        AgentMessage,
        ExecutionChange,
        ExecutionControl,
    )

    _ListField = Literal["messages", "tool_calls", "sub_agent_executions"]

__all__ = [
    "REPLACEABLE_FIELDS",
    "EntryIndex",
    "Stamp",
    "fold",
    "fold_all",
    "merge_basic",
    "merge_status",
    "normalise_delta",
    "settle",
]

#: The fields of a status that a client's delta can replace whole.
REPLACEABLE_FIELDS: Final = frozenset(
    {
        "messages",
        "tool_calls",
        "sub_agent_executions",
        "todos",
        "usage",
        "error",
        "reason",
        "callback_token",
    }
)

#: Those that any change can replace whole.
_CLEARABLE: Final = REPLACEABLE_FIELDS | {"completed_at"}
_STRUCT: Final = "google.protobuf.Struct"
_VALUES: Final = frozenset(
    {
        "google.protobuf.Timestamp",
        "google.protobuf.Duration",
        "runstream.v1.AuditActor",
        "runstream.v1.ToolCallApproval",
    }
)
#: What an entry's own rules deal with.
_ENTRY_FIELDS: Final = frozenset({"id", "revision", "attempt", "content_append", "tool_calls"})
_NO_FIELDS: Final[frozenset[str]] = frozenset()
_LISTS: Final = frozenset(LIST_FIELDS)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an entry is marked with when a delta begins it; `time` is RFC 3339."""

    revision: int
    attempt: int
    time: str
    #: The newest attempt whose own entries leave the state; 0 for none.
    supersedes: int = 0


def merge_status(
    state: AgentExecutionStatus,
    delta: AgentExecutionStatus,
    stamp: Stamp,
    replace: Iterable[str] = (),
    index: EntryIndex | None = None,
) -> None:
    """Merge `delta` into `state`, in place, by the rules above; `delta` stays as it is.

    With the `index` of this state the cost is that of the delta; without one, the lists that the
    delta has entries for are searched once. ValueError, with nothing changed, for a name in
    `replace` that cannot be replaced.
    """
    index = EntryIndex() if index is None else index
    _clear(state, replace, index)
    if stamp.supersedes:
        _supersede(state, stamp.supersedes, index)
    for field, value in delta.ListFields():
        rule = _STATUS_RULES.get(field.name)
        if rule is not None:
            rule(state, value, stamp, index)
        elif field.message_type is None:
            setattr(state, field.name, value)
        else:
            _merge_message(getattr(state, field.name), value)


def merge_basic(state: AgentExecutionStatus, delta: AgentExecutionStatus, replace: Iterable[str] = ()) -> None:
    """Merge what the BASIC view shows of `delta` into `state`, in place, as `merge_status` does.

    The lists are neither looked at nor touched, so the cost does not grow with them. ValueError as
    `merge_status`.
    """
    names = frozenset(replace)
    if names:
        _clear(state, names - _LISTS, EntryIndex())
    for field, value in delta.ListFields():
        name = field.name
        if name == "control":
            _set_control(state, value)
        elif name in _LISTS:
            continue
        elif field.message_type is None:
            setattr(state, name, value)
        else:
            _merge_message(getattr(state, name), value)


def fold(execution: AgentExecution, change: ExecutionChange, index: EntryIndex | None = None) -> None:
    """Apply a change to an execution, in place, by the rules above.

    ValueError, with nothing changed, for a revision that does not follow the execution's, a kind
    of change or a field to replace that is unknown here, and a `change_time` out of range.
    """
    kind = change.WhichOneof("kind")
    apply = _KINDS.get(kind or "")
    if apply is None:
        raise ValueError(f"Change {change.revision} is of no kind that is known here.")
    expected = execution.metadata.revision + 1
    if change.revision != expected and kind not in _WHOLE:
        raise ValueError(f"Change {change.revision} cannot follow; {expected} comes next.")
    apply(execution, change, EntryIndex() if index is None else index)
    execution.metadata.revision = change.revision


def fold_all(
    execution: AgentExecution,
    changes: Iterable[ExecutionChange],
    index: EntryIndex | None = None,
) -> None:
    """Apply changes in order, as `fold` does each, in a time that grows with their size alone.

    Text that many changes append to a message is joined once at the end, where `fold` writes the
    whole text for each of them. ValueError as in `fold`; the changes before it are applied.
    """
    index = EntryIndex() if index is None else index
    index.defer_text()
    try:
        for change in changes:
            fold(execution, change, index)
    finally:
        index.write_text(execution.status)


def _clear(state: AgentExecutionStatus, replace: Iterable[str], index: EntryIndex) -> None:
    names = frozenset(replace)
    if not names:
        return
    if not names <= _CLEARABLE:
        refused = ", ".join(sorted(names - _CLEARABLE))
        raise ValueError(f"Cannot be replaced whole: {refused}.")
    for name in names:
        state.ClearField(name)  # type: ignore[arg-type]  # one of several fields
    index.forget(names)


def _supersede(state: AgentExecutionStatus, attempt: int, index: EntryIndex) -> None:
    index.write_text(state, go_on=True)  # what is dropped must not be found by what is still to be written
    kept_entries: dict[_ListField, list[Any]] = {
        "messages": [entry for entry in state.messages if entry.attempt > attempt or entry.type == MESSAGE_HUMAN],
        "tool_calls": [entry for entry in state.tool_calls if entry.attempt > attempt],
        "sub_agent_executions": [
            entry for entry in state.sub_agent_executions if entry.attempt > attempt or entry.execution_id
        ],
    }
    for name, kept in kept_entries.items():
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
        state.ClearField(name)
        getattr(state, name).extend(copies)
    state.ClearField("todos")
    index.forget(kept_entries)


def _merge_fields(target: Message, source: Message, without: frozenset[str]) -> None:
    for field, value in source.ListFields():
        name = field.name
        if name in without:
            continue
        if field.message_type is None:
            setattr(target, name, value)
        else:
            _merge_message(getattr(target, name), value)


def _merge_message(target: Message, source: Message) -> None:
    name = source.DESCRIPTOR.full_name
    if name in _VALUES:
        target.CopyFrom(source)
        return
    target.SetInParent()
    if name == _STRUCT:
        target.MergeFrom(source)
    else:
        _merge_fields(target, source, _NO_FIELDS)


# A list of generated messages, of whichever of the entry types: they share no public generic type.
_Entries = Any


def _place(entries: _Entries, entry_id: str, positions: Positions) -> tuple[Any, bool]:
    """Return the entry with an id, appended if there was none, and whether it was."""
    at = positions.find(entries, entry_id)
    if at is not None:
        return entries[at], False
    positions.appended(entry_id)
    return entries.add(id=entry_id), True


def _merge_entries(entries: _Entries, delta: _Entries, stamp: Stamp | None, positions: Positions) -> None:
    for entry in delta:
        target, begun = _place(entries, entry.id, positions)
        if begun and stamp is not None:
            target.revision, target.attempt = stamp.revision, stamp.attempt
        _merge_fields(target, entry, _ENTRY_FIELDS)


def _merge_messages(
    state: AgentExecutionStatus, delta: Iterable[AgentMessage], stamp: Stamp, index: EntryIndex
) -> None:
    positions = index.positions("messages")
    for entry in delta:
        target, begun = _place(state.messages, entry.id, positions)
        if begun:
            target.revision, target.attempt = stamp.revision, stamp.attempt
        _merge_agent_message(target, entry, stamp, index)
        if begun and not target.timestamp:
            target.timestamp = stamp.time


def _merge_agent_message(target: AgentMessage, entry: AgentMessage, stamp: Stamp, index: EntryIndex) -> None:
    if entry.content:
        index.drop_text(entry.id)
    _merge_fields(target, entry, _ENTRY_FIELDS)
    if entry.content_append:
        index.append_text(target, entry.content_append)
    if entry.tool_calls:
        _merge_entries(target.tool_calls, entry.tool_calls, stamp, index.nested(entry.id))


def _merge_tool_calls(state: AgentExecutionStatus, delta: _Entries, stamp: Stamp, index: EntryIndex) -> None:
    _merge_entries(state.tool_calls, delta, stamp, index.positions("tool_calls"))


def _merge_sub_agents(state: AgentExecutionStatus, delta: _Entries, stamp: Stamp, index: EntryIndex) -> None:
    positions = index.positions("sub_agent_executions")
    _merge_entries(state.sub_agent_executions, delta, stamp, positions)


def _merge_usage(state: AgentExecutionStatus, delta: _Entries, _stamp: Stamp, index: EntryIndex) -> None:
    _merge_entries(state.usage, delta, None, index.positions("usage"))


def _merge_todos(state: AgentExecutionStatus, delta: Mapping[str, Any], _stamp: Stamp, _index: EntryIndex) -> None:
    for key, todo in delta.items():
        target = state.todos[key]
        _merge_fields(target, todo, _ENTRY_FIELDS)
        target.id = key


def _merge_control(state: AgentExecutionStatus, delta: ExecutionControl, _stamp: Stamp, _index: EntryIndex) -> None:
    _set_control(state, delta)


def _set_control(status: AgentExecutionStatus, control: ExecutionControl) -> None:
    if control.action:
        status.control.CopyFrom(control)
    else:
        status.ClearField("control")


def _fold_snapshot(execution: AgentExecution, change: ExecutionChange, index: EntryIndex) -> None:
    execution.CopyFrom(change.snapshot)
    index.clear()


def _fold_created(execution: AgentExecution, change: ExecutionChange, index: EntryIndex) -> None:
    execution.CopyFrom(change.created)
    index.clear()


def _fold_status(execution: AgentExecution, change: ExecutionChange, index: EntryIndex) -> None:
    time = to_rfc3339(to_datetime(change.change_time))
    stamp = Stamp(change.revision, change.attempt, time, change.supersedes)
    merge_status(execution.status, change.status, stamp, change.replace_mask, index)


def _fold_updated(execution: AgentExecution, change: ExecutionChange, _index: EntryIndex) -> None:
    updated = change.updated
    execution.api_version, execution.kind = updated.api_version, updated.kind
    execution.metadata.CopyFrom(updated.metadata)
    if updated.HasField("spec"):
        execution.spec.CopyFrom(updated.spec)
    else:
        execution.ClearField("spec")
    if updated.status.audit.HasField("spec_audit"):
        execution.status.audit.spec_audit.CopyFrom(updated.status.audit.spec_audit)


def _fold_control(execution: AgentExecution, change: ExecutionChange, _index: EntryIndex) -> None:
    _set_control(execution.status, change.control)


def _fold_deleted(execution: AgentExecution, change: ExecutionChange, index: EntryIndex) -> None:
    """Leave the execution as it was last."""


#: Fields of a status that do not merge as any field of any message does.
_STATUS_RULES: Final[dict[str, Callable[[AgentExecutionStatus, Any, Stamp, EntryIndex], None]]] = {
    "messages": _merge_messages,
    "tool_calls": _merge_tool_calls,
    "sub_agent_executions": _merge_sub_agents,
    "usage": _merge_usage,
    "todos": _merge_todos,
    "control": _merge_control,
}

#: What each kind of change does.
_KINDS: Final[dict[str, Callable[[AgentExecution, ExecutionChange, EntryIndex], None]]] = {
    "snapshot": _fold_snapshot,
    "created": _fold_created,
    "status": _fold_status,
    "updated": _fold_updated,
    "control": _fold_control,
    "deleted": _fold_deleted,
}

#: The kinds that hold a whole execution, so that nothing need come before them.
_WHOLE: Final = frozenset({"snapshot", "created"})
