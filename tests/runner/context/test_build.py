"""The one builder of contexts: what it reads, what it checks, and what it never looks at."""

from __future__ import annotations

from typing import Any

import pytest

from runstream.runner.context import Budget, ContextInvalid, Thoroughness, build_context
from runstream.v1.agent_execution_pb2 import THOROUGHNESS_QUICK
from runstream.v1.runner_pb2 import Assignment
from runstream.v1.session_pb2 import Session

EXECUTION = "aex_01m7z8kh30kcmnvt0d0d9qj7hc"
ROOT = "aex_01m7z8kh30kcmnvt0d0d9qj7hd"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def assignment() -> Assignment:
    """Return an assignment with everything in it."""
    made = Assignment(attempt=3)
    made.execution.metadata.id, made.execution.metadata.org = EXECUTION, "acme"
    made.execution.spec.session_id = "ses_1"
    asked = made.execution.spec.context
    asked.user_id, asked.language, asked.correlation_id, asked.traceparent = "ada", "de", "order-7", TRACE
    asked.parent_execution_id, asked.parent_call_id, asked.root_execution_id = ROOT, "call-1", ROOT
    asked.thoroughness = THOROUGHNESS_QUICK
    asked.allowed_tools.append("write file")
    asked.budget.tokens, asked.budget.depth = 9, 1
    asked.baggage["k"] = "v"
    asked.attributes["list"] = [1, "two"]
    made.agent.metadata.id, made.agent.metadata.revision = "agt_1", 4
    made.agent.spec.tools.append("write_file")
    made.remaining.FromSeconds(60)
    return made


def test_an_assignment_says_everything() -> None:
    context = build_context(assignment=assignment())
    assert (context.org, context.user, context.session, context.stateless) == ("acme", "ada", "ses_1", False)
    assert (context.execution, context.root_execution, context.attempt) == (EXECUTION, ROOT, 3)
    assert (context.parent_execution, context.parent_call) == (ROOT, "call-1")
    assert (context.agent, context.agent_revision, context.agent_tools) == ("agt_1", 4, frozenset({"write_file"}))
    assert context.budget == Budget(tokens=9, depth=1)
    assert context.thoroughness is Thoroughness.QUICK
    assert (context.language, context.correlation_id, context.traceparent) == ("de", "order-7", TRACE)
    assert context.allowed_tools == frozenset({"write_file"})
    assert 59 < (context.remaining() or 0) <= 60
    assert (dict(context.baggage), context.attributes["list"]) == ({"k": "v"}, (1, "two"))


def test_an_assignment_that_says_nothing_is_without_limits() -> None:
    made = Assignment(attempt=1)
    made.execution.metadata.id = EXECUTION
    context = build_context(assignment=made)
    assert context.stateless
    assert context.session is None
    assert (context.root_execution, context.correlation_id) == (EXECUTION, EXECUTION)
    assert context.thoroughness is Thoroughness.MEDIUM
    assert (context.language, context.deadline, context.allowed_tools, context.agent_tools) == ("en", None, None, None)
    assert context.budget == Budget()


def test_no_tools_at_all_is_told_from_nothing_said_about_tools() -> None:
    made = Assignment(attempt=1)
    made.execution.metadata.id = EXECUTION
    made.execution.spec.context.only_allowed_tools = True
    assert build_context(assignment=made).allowed_tools == frozenset()


def test_a_session_is_read_once_and_says_no_more_than_where_it_belongs() -> None:
    session = Session()
    session.metadata.id, session.metadata.org = "ses_1", "acme"
    session.status.agent_id = "agt_1"
    session.spec.metadata["parentCallId"] = "of somebody else"
    context = build_context(from_session=session, user="ada")
    assert (context.session, context.org, context.agent, context.user) == ("ses_1", "acme", "agt_1", "ada")
    assert (context.parent_call, dict(context.attributes)) == (None, {})
    assert (context.execution, context.attempt) == ("", 0)


def test_given_values_alone_are_stateless() -> None:
    context = build_context(org="acme", max_duration=5)
    assert (context.stateless, context.session) == (True, None)
    assert build_context(session="ses_1").stateless is False


def test_the_word_that_stood_for_no_session_is_understood_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="stateless_execution") as caught:
        context = build_context(session="stateless_execution", org="acme")
    assert (context.stateless, context.session) == (True, None)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"parent_execution": EXECUTION}, ["parent_call"]),
        ({"parent_call": "call-1"}, ["parent_execution"]),
        ({"session": "ses_1", "stateless": True}, ["session"]),
        ({"stateless": False}, ["session"]),
        ({"execution": EXECUTION}, ["attempt"]),
        ({"attempt": 1}, ["attempt"]),
        ({"execution": "exec-1", "attempt": 1}, ["execution"]),
        ({"user": 7}, ["user"]),
        ({"user": "u" * 257}, ["user"]),
        ({"traceparent": "00-xyz"}, ["traceparent"]),
        ({"language": "not a tag"}, ["language"]),
        ({"thoroughness": "very much"}, ["thoroughness"]),
        ({"thoroughness": 2}, ["thoroughness"]),
        ({"budget": {"tokens": -1, "steps": 3}}, ["budget.steps", "budget.tokens"]),
        ({"budget": 5}, ["budget"]),
        ({"max_duration": float("inf")}, ["max_duration"]),
        ({"max_duration": True}, ["max_duration"]),
        ({"allowed_tools": "search"}, ["allowed_tools"]),
        ({"allowed_tools": ["", "a"]}, ["allowed_tools"]),
        ({"agent_revision": -1}, ["agent_revision"]),
        ({"baggage": {"a": 1}}, ["baggage"]),
        ({"baggage": {str(n): "" for n in range(65)}}, ["baggage"]),
        ({"attributes": {"a": object()}}, ["attributes.a"]),
        ({"attributes": [1]}, ["attributes"]),
        ({"user": 7, "language": "", "max_duration": 0, "baggage": 1}, ["user", "max_duration", "baggage"]),
    ],
)
def test_every_field_that_is_wrong_is_told(wrong: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(ContextInvalid) as caught:
        build_context(**wrong)
    assert [field for field, _ in caught.value.violations] == fields
    assert all(field in str(caught.value) for field in fields)


def test_a_field_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(TypeError, match="has no sesion; it has org, user, session"):
        build_context(sesion="ses_1")  # type: ignore[call-arg]


async def test_outside_of_any_execution_reports_go_nowhere_and_nobody_is_asked() -> None:
    context = build_context(org="acme")
    await context.report.text("into the wind")
    async with context.report.tool("look") as call:
        call.result = "nothing"
    with pytest.raises(Exception, match="nobody to ask"):
        await context.report.needs_input("Where to?")
    with pytest.raises(LookupError, match="TOKEN"):
        context.secret("TOKEN")
