"""Build: the one place where contexts are made that have no parent in this process."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypedDict

from google.protobuf.json_format import MessageToDict

from runstream.model.times import to_seconds
from runstream.runner.aside import aside
from runstream.runner.context import limits as checks
from runstream.runner.context.budget import Budget
from runstream.runner.context.limits import Thoroughness, Violations, tool_names
from runstream.runner.context.value import DEFAULT_LANGUAGE, ExecutionContext, made
from runstream.runner.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from typing import Unpack

    from runstream.runner.context.work import Work
    from runstream.v1.runner_pb2 import Assignment
    from runstream.v1.session_pb2 import Session

#: What some callers give for the id of a session when they mean that there is none.
STATELESS_SENTINEL: Final = "stateless_execution"

_LONGEST_ID: Final = 256
_MOST_BAGGAGE: Final = 64
_EXECUTION: Final = re.compile(r"aex_[0-7][0-9a-hjkmnp-tv-z]{25}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Given(TypedDict, total=False):
    """What a context can be made of; see `ExecutionContext` for what each field is."""

    org: str
    user: str
    session: str | None
    stateless: bool
    execution: str
    root_execution: str
    attempt: int
    parent_execution: str | None
    parent_call: str | None
    agent: str
    agent_revision: int
    agent_tools: Iterable[str] | None
    #: The longest it may take: seconds, or a timedelta.
    max_duration: float | timedelta | None
    budget: Budget | Mapping[str, int] | None
    #: One of Thoroughness, or its name.
    thoroughness: Thoroughness | str | None
    language: str
    allowed_tools: Iterable[str] | None
    correlation_id: str
    traceparent: str
    baggage: Mapping[str, str]
    attributes: Mapping[str, Any]


def build_context(
    *,
    assignment: Assignment | None = None,
    from_session: Session | None = None,
    work: Work | None = None,
    **given: Unpack[Given],
) -> ExecutionContext:
    """Make a context: of an assignment, of a session as the server has it, or of given values alone.

    What is given beside an assignment or a session takes the place of what is read there. Without a session it is
    stateless. ContextInvalid names every field that is wrong. `work` is what it acts with: what is reported without any
    goes nowhere.
    """
    values: dict[str, Any] = {}
    if assignment is not None:
        values |= _of_assignment(assignment)
    if from_session is not None:
        values |= _of_session(from_session)
    values |= given
    checked = _checked(values)
    return made(**checked, _work=work or aside(checked["budget"]))


def _of_assignment(assignment: Assignment) -> dict[str, Any]:
    """Read what the server has assigned. Nothing is looked up: it is all there."""
    execution, agent = assignment.execution, assignment.agent
    asked = execution.spec.context
    limited = asked.only_allowed_tools or asked.allowed_tools
    return {
        "org": execution.metadata.org,
        "user": asked.user_id,
        "session": None if asked.stateless else execution.spec.session_id or None,
        "execution": execution.metadata.id,
        "root_execution": asked.root_execution_id,
        "attempt": assignment.attempt,
        "parent_execution": asked.parent_execution_id or None,
        "parent_call": asked.parent_call_id or None,
        "agent": agent.metadata.id,
        "agent_revision": agent.metadata.revision,
        "agent_tools": list(agent.spec.tools) or None,
        "max_duration": max(_LEAST, to_seconds(assignment.remaining)) if assignment.HasField("remaining") else None,
        "budget": Budget.from_wire(asked.budget),
        "thoroughness": Thoroughness(asked.thoroughness) if asked.thoroughness else None,
        "language": asked.language,
        "allowed_tools": list(asked.allowed_tools) if limited else None,
        "correlation_id": asked.correlation_id,
        "traceparent": asked.traceparent,
        "baggage": dict(asked.baggage),
        "attributes": MessageToDict(asked.attributes) if asked.HasField("attributes") else {},
    }


#: What remains when the deadline is over already: it is found out soon.
_LEAST: Final = 1e-6


def _of_session(session: Session) -> dict[str, Any]:
    return {"org": session.metadata.org, "session": session.metadata.id, "agent": session.status.agent_id}


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """Check and complete what was given; every field that is wrong is told."""
    if not given.keys() <= _KNOWN:
        unknown = sorted(given.keys() - _KNOWN)
        raise TypeError(f"a context has no {', '.join(unknown)}; it has {', '.join(Given.__annotations__)}")
    violations = Violations()
    values: dict[str, Any] = {name: _text(violations, name, given.get(name)) for name in _TEXTS}
    for name in ("session", "parent_execution", "parent_call"):
        values[name] = values[name] or None
    values |= _session(violations, values["session"], given.get("stateless"))
    _check_ids(violations, values)
    values |= _place(violations, values, given)
    values |= _limits(violations, given)
    values["baggage"] = _baggage(violations, given.get("baggage") or {})
    violations.end()
    return values


_KNOWN: Final = Given.__annotations__.keys()
_TEXTS: Final = (
    *("org", "user", "session", "execution", "root_execution", "parent_execution", "parent_call", "agent"),
    *("correlation_id", "traceparent"),
)


def _text(violations: Violations, name: str, given: object) -> str:
    if given is None:
        return ""
    if not isinstance(given, str):
        violations.add(name, f"must be a text, not {given!r}")
        return ""
    if not given.isascii() and clean(given) != given:
        violations.add(name, f"must be text that UTF-8 can write, not {given!r}")
    if len(given) > _LONGEST_ID:
        violations.add(name, f"must have at most {_LONGEST_ID} characters, not {len(given)}")
    return given


def _session(violations: Violations, session: str | None, stateless: object) -> dict[str, Any]:
    if session == STATELESS_SENTINEL:
        told = f"the session id {STATELESS_SENTINEL!r} is deprecated: give no session, or stateless=True"
        warnings.warn(told, DeprecationWarning, stacklevel=4)
        session = None
    if stateless not in (None, True, False):
        violations.add("stateless", f"must be True or False, not {stateless!r}")
    if stateless and session is not None:
        violations.add("session", f"must not be given with stateless, but is {session!r}")
    if stateless is False and session is None:
        violations.add("session", "must be given unless it is stateless")
    return {"session": session, "stateless": session is None}


def _check_ids(violations: Violations, values: dict[str, Any]) -> None:
    for name in ("execution", "root_execution", "parent_execution"):
        if values[name] and not _EXECUTION.fullmatch(values[name]):
            violations.add(name, f"must be the id of an execution, as aex_…, not {values[name]!r}")
    if values["traceparent"] and not _TRACEPARENT.fullmatch(values["traceparent"]):
        violations.add("traceparent", f"must be a W3C traceparent, as 00-…-…-01, not {values['traceparent']!r}")
    if (values["parent_execution"] is None) != (values["parent_call"] is None):
        missing = "parent_call" if values["parent_call"] is None else "parent_execution"
        violations.add(missing, "must be given: parent_execution and parent_call are given both or neither")


def _place(violations: Violations, values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Complete where it stands: attempt, root, revision and correlation id."""
    attempt, revision = given.get("attempt", 0), given.get("agent_revision", 0)
    for name, number in (("attempt", attempt), ("agent_revision", revision)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            violations.add(name, f"must be a whole number of at least 0, not {number!r}")
    if bool(values["execution"]) != bool(attempt):
        violations.add("attempt", f"must be at least 1 with an execution, and 0 without, not {attempt!r}")
    root = values["root_execution"] or values["execution"]
    tools = given.get("agent_tools")
    return {
        "attempt": attempt,
        "agent_revision": revision,
        "agent_tools": None if tools is None else tool_names(tools),
        "root_execution": root,
        "correlation_id": values["correlation_id"] or root,
    }


def _limits(violations: Violations, given: dict[str, Any]) -> dict[str, Any]:
    seconds, budget, tools = given.get("max_duration"), given.get("budget"), given.get("allowed_tools")
    language, attributes = given.get("language"), given.get("attributes")
    deadline = None if seconds is None else time.monotonic() + checks.check_duration(violations, seconds)
    thoroughness = given.get("thoroughness") or Thoroughness.MEDIUM
    return {
        "deadline": deadline,
        "budget": Budget() if budget is None else checks.check_budget(violations, budget),
        "thoroughness": checks.check_thoroughness(violations, thoroughness),
        "language": checks.check_language(violations, language) if language else DEFAULT_LANGUAGE,
        "allowed_tools": None if tools is None else checks.check_tools(violations, tools),
        "attributes": checks.check_attributes(violations, attributes) if attributes else {},
    }


def _baggage(violations: Violations, given: object) -> Mapping[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for pair in given.items() for text in pair):
        violations.add("baggage", f"must be a mapping of texts to texts, not {given!r}")
        return {}
    if len(given) > _MOST_BAGGAGE:
        violations.add("baggage", f"must have at most {_MOST_BAGGAGE} entries, not {len(given)}")
    return given
