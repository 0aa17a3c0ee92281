"""Hypothesis strategies for deltas and logs that a hostile client could bring about.

Few ids and keys, so that they meet; empty and repeated ids; output fields set; content next to
content_append; structs whose keys change their type; fields that nobody knows; empty sub-messages.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from runstream.model.merge import REPLACEABLE_FIELDS
from runstream.v1.agent_execution_pb2 import (
    AgentExecution,
    AgentExecutionSpec,
    AgentExecutionStatus,
    AgentMessage,
    ComponentMetadata,
    ExecutionChange,
    ExecutionControl,
    ExecutionDeleted,
    SubAgentExecution,
    TodoItem,
    ToolCall,
    Usage,
)
from runstream.v1.resource_pb2 import Audit, AuditActor, AuditInfo, ResourceMetadata

#: Field 999, length-delimited, one byte long: no message of this API has it.
UNKNOWN_FIELD = b"\xba\x3e\x01x"

IDS = st.sampled_from(["", "a", "b", "c", "d"])
TEXTS = st.sampled_from(["", "x", "yz", "\u00e9\U0001f600", " "])
SMALL = st.integers(0, 3)

_JSON = st.recursive(
    st.none() | st.booleans() | st.just(1.5) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def structs(draw: st.DrawFn) -> Struct:
    """Structs, whose keys hold now this type, now that."""
    struct = Struct()
    struct.update(draw(st.dictionaries(TEXTS, _JSON, max_size=2)))
    return struct


def _some(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:  # noqa: ANN401
    """Messages with any of the fields, and now and then one that is unknown."""

    def make(values: dict[str, Any], unknown: bool) -> Any:  # noqa: ANN401, FBT001
        made = kind(**values)
        if unknown:
            made.MergeFromString(UNKNOWN_FIELD)
        return made

    return st.builds(make, st.fixed_dictionaries({}, optional=fields), st.sampled_from([False, False, True]))


TOOL_CALLS = _some(
    ToolCall,
    id=IDS,
    name=TEXTS,
    args=structs(),
    result=TEXTS,
    status=st.integers(0, 7),
    component_metadata=_some(ComponentMetadata, layout_hint=TEXTS, metadata=structs()),
    completed_at=TEXTS,
    attempt=SMALL,
    revision=SMALL,
)
MESSAGES = _some(
    AgentMessage,
    id=IDS,
    type=st.integers(0, 5),
    content=TEXTS,
    content_append=TEXTS,
    timestamp=TEXTS,
    tool_calls=st.lists(TOOL_CALLS, max_size=3),
    metadata=structs(),
    attempt=SMALL,
    revision=SMALL,
)
SUB_AGENTS = _some(
    SubAgentExecution,
    id=IDS,
    status=st.integers(0, 5),
    output=TEXTS,
    execution_id=st.sampled_from(["", "", "aex"]),
    metadata=structs(),
    attempt=SMALL,
    revision=SMALL,
)
USAGES = _some(Usage, id=IDS, model=TEXTS, input_tokens=SMALL)
TODOS = st.dictionaries(IDS, _some(TodoItem, id=IDS, content=TEXTS, status=st.integers(0, 4)), max_size=3)
CONTROLS = _some(ExecutionControl, action=st.integers(0, 2), reason=TEXTS)
AUDITS = _some(
    Audit,
    status_audit=_some(
        AuditInfo,
        updated_by=_some(AuditActor, id=TEXTS, avatar=TEXTS),
        updated_at=st.builds(Timestamp, seconds=SMALL, nanos=SMALL),
        event=TEXTS,
    ),
)
DELTAS: st.SearchStrategy[AgentExecutionStatus] = _some(
    AgentExecutionStatus,
    messages=st.lists(MESSAGES, max_size=4),
    phase=st.integers(0, 9),
    tool_calls=st.lists(TOOL_CALLS, max_size=3),
    sub_agent_executions=st.lists(SUB_AGENTS, max_size=3),
    error=TEXTS,
    started_at=TEXTS,
    completed_at=TEXTS,
    todos=TODOS,
    callback_token=st.sampled_from([b"", b"t"]),
    attempt=SMALL,
    usage=st.lists(USAGES, max_size=3),
    reason=TEXTS,
    control=CONTROLS,
    audit=AUDITS,
)
MASKS: st.SearchStrategy[list[str]] = st.lists(st.sampled_from(sorted(REPLACEABLE_FIELDS)), unique=True)

_EXECUTIONS = _some(
    AgentExecution,
    api_version=TEXTS,
    metadata=_some(ResourceMetadata, name=TEXTS, revision=SMALL),
    spec=_some(AgentExecutionSpec, message=TEXTS),
    status=_some(AgentExecutionStatus, audit=st.builds(Audit, spec_audit=_some(AuditInfo, event=TEXTS))),
)
_KINDS = st.one_of(
    st.fixed_dictionaries({"status": DELTAS, "replace_mask": MASKS, "supersedes": SMALL}),
    st.fixed_dictionaries({"status": DELTAS}),
    st.fixed_dictionaries({"control": CONTROLS}),
    st.fixed_dictionaries({"updated": _EXECUTIONS}),
    st.just({"deleted": ExecutionDeleted()}),
)


@st.composite
def logs(draw: st.DrawFn) -> list[ExecutionChange]:
    """Logs: a creation and up to six changes of any kind, of revisions without a gap."""
    kinds: list[dict[str, Any]] = [{"created": draw(_EXECUTIONS)}, *draw(st.lists(_KINDS, max_size=6))]
    return [
        ExecutionChange(
            revision=revision,
            change_time=Timestamp(seconds=1_700_000_000 + revision, nanos=1_999_999),
            attempt=draw(SMALL),
            **kind,
        )
        for revision, kind in enumerate(kinds, start=1)
    ]
