from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runstream.pipeline.resources import label_term
from runstream.services.resource_types import (
    CANCEL_TERM,
    EXECUTIONS,
    agent_term,
    is_under,
    parent_term,
    phase_term,
    session_term,
)
from runstream.storage.store import Term
from runstream.v1.agent_execution_pb2 import CONTROL_CANCEL, CONTROL_PAUSE, AgentExecution

_TEXT = st.sampled_from(["", "a", "b", "1:a", "a:b"])
_EXECUTIONS = st.builds(
    AgentExecution,
    metadata=st.fixed_dictionaries({"org": _TEXT, "tags": st.lists(_TEXT), "labels": st.dictionaries(_TEXT, _TEXT)}),
    spec=st.fixed_dictionaries(
        {
            "agent_id": _TEXT,
            "session_id": _TEXT,
            "context": st.fixed_dictionaries({"parent_execution_id": _TEXT}),
        }
    ),
    status=st.fixed_dictionaries(
        {
            "phase": st.integers(0, 9),
            "control": st.fixed_dictionaries({"action": st.sampled_from([0, CONTROL_CANCEL, CONTROL_PAUSE])}),
        }
    ),
)
_TERMS = st.one_of(
    st.builds(Term, st.sampled_from(["org", "tag"]), _TEXT),
    st.builds(label_term, _TEXT, _TEXT),
    st.builds(agent_term, _TEXT),
    st.builds(session_term, _TEXT),
    st.builds(parent_term, _TEXT),
    st.builds(phase_term, st.integers(0, 9)),
    st.just(CANCEL_TERM),
)


@given(_EXECUTIONS, _TERMS)
def test_what_is_under_a_term_is_what_is_indexed_under_it(execution: AgentExecution, term: Term) -> None:
    """A list that looks at one term says the same as the index that was made of all."""
    assert is_under(execution, term) == (term in EXECUTIONS.terms(execution))
