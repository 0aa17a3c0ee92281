"""Value: what one invocation is, for whom, and what it may do. Immutable, made once, passed on explicitly.

A context is made by `build_context` and, for whatever works for it, by `child`; there is no other way, and none that
widens: a child has no later deadline, no larger budget, no more tools and no more thoroughness than its parent.
Nothing in it is ever derived from a session or kept in an agent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from runstream.model.tool_names import sanitised
from runstream.runner.context.limits import Limits, Order, tool_names
from runstream.v1 import agent_execution_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Unpack

    from runstream.runner.agents import Agent, AgentFunction
    from runstream.runner.bridge import Bridge
    from runstream.runner.context.budget import Budget, Ledger
    from runstream.runner.context.limits import GivenLimits, Thoroughness
    from runstream.runner.context.work import Work
    from runstream.runner.delegation import Delegated
    from runstream.runner.reporter import Reporter

T = TypeVar("T")

#: What a context that is made without values of its own has.
DEFAULT_LANGUAGE: Final = "en"


@dataclass(frozen=True, slots=True)
class ExecutionContext:
    """The context of one invocation: of an agent, or of a tool that it calls.

    Two contexts are equal when their values are. A copy is the same object. It is not pickled: between processes it
    travels as the API writes it, see `to_wire`.
    """

    _: KW_ONLY
    #: The organization, and the user for whom this is done; empty when nobody has said.
    org: str
    user: str
    #: The session; None exactly when stateless.
    session: str | None
    stateless: bool
    #: The execution and the first one of its tree; empty for what runs outside of any.
    execution: str
    root_execution: str
    #: Which attempt at the execution this is, from 1; 0 outside of any.
    attempt: int
    #: The execution, and the tool call of it, that asked for this: both or neither. Of a tool that an agent calls, and
    #: of whatever works within that, they are the agent's execution and the call.
    parent_execution: str | None
    parent_call: str | None
    #: The agent's id, its revision, and the tools that it has by itself; None is any. Agents that work for it in this
    #: process have no more.
    agent: str
    agent_revision: int
    agent_tools: frozenset[str] | None
    #: When it must have ended, in seconds of `time.monotonic`; None is never.
    deadline: float | None
    budget: Budget
    thoroughness: Thoroughness
    #: The language to answer in, as a BCP 47 tag.
    language: str
    #: The tools that may be used, by sanitised name; None is all.
    allowed_tools: frozenset[str] | None
    #: The caller's id of what this belongs to; the same in the whole tree.
    correlation_id: str
    #: The W3C trace context of the caller, or of the span that this is done in.
    traceparent: str
    baggage: Mapping[str, str] = field(hash=False)
    #: Anything else the agent is to know.
    attributes: Mapping[str, Any] = field(hash=False)
    _work: Work | None = field(default=None, repr=False, compare=False)
    _made: InitVar[object]

    def __post_init__(self, _made: object) -> None:
        """Let contexts be made here alone: what anybody could make, anybody could widen."""
        if _made is not _MADE_HERE:
            raise TypeError("a context is made by build_context, or by the child method of another one")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError("a context is not pickled; pass what to_wire() returns to another process")

    def child(
        self,
        *,
        call_id: str | None = None,
        agent: str | None = None,
        agent_revision: int = 0,
        agent_tools: Iterable[str] | None = None,
        **limits: Unpack[GivenLimits],
    ) -> ExecutionContext:
        """Return the context of an agent that works for this one, within tool call `call_id` if there is one.

        What is given can only narrow: the deadline and each budget are the smaller of both, tools are those that both
        allow, thoroughness is never above this one's, depth is one less. The rest stays unless given; organization,
        user, session, correlation id and root stay always. BudgetExceeded when no agent may stand below this one.
        """
        changed: dict[str, Any] = {}
        if agent is not None:
            tools = None if agent_tools is None else tool_names(agent_tools)
            changed = {"agent": agent, "agent_revision": agent_revision, "agent_tools": tools}
        return narrowed(self, Limits.of(**limits), call_id, below=True, **changed)

    @property
    def is_over(self) -> bool:
        """Whether the run it belongs to has ended: there is nothing left to report, and no secret."""
        return self._work is not None and self._work.secrets.gone

    @property
    def report(self) -> Reporter:
        """Tells what is done in this context. Outside of any run nobody hears it."""
        return self._working().report

    def allows(self, tool: str) -> bool:
        """Tell whether a tool may be used, by name: by whoever asked, and by the agent itself."""
        name = sanitised(tool)
        return all(allowed is None or name in allowed for allowed in (self.allowed_tools, self.agent_tools))

    def remaining(self) -> float | None:
        """Return how many seconds are left until the deadline, 0 when it is over; None when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def ledger(self) -> Ledger:
        """Counts what is spent; the SDK does so for all that it sees: tools, and the usage that is reported."""
        return self._working().ledger

    def left(self) -> Budget:
        """Return what may still be spent, after what was spent in this context, above it, and beside it."""
        return self.ledger.left()

    def secret(self, name: str) -> str:
        """Return a variable of the run by name. SecretUnknown if there is none, SecretsGone once the run is over.

        It is no field of the context: it is in no repr, no child on another machine, and no record.
        """
        return self._working().secrets.get(name)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the runner's loop, wait for it in this thread, and return what it returns.

        For plain functions, which run in a thread of their own. Raises `asyncio.CancelledError` once the agent has been
        stopped.
        """
        return self._working().bridge.wait(work)

    async def delegate(  # noqa: PLR0913  # each is an option
        self,
        agent: str,
        message: str,
        *,
        id: str = "",  # noqa: A002  # as the API calls it
        session: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
        **limits: Unpack[GivenLimits],
    ) -> Delegated:
        """Have another agent, by slug or id, execute `message` as an execution of its own, and return its result.

        The execution is made through the service, anywhere; it is followed until it ends, and cancelled when this is.
        It has no session unless one is given, no variables but `env` and those of `secrets`, which are names of
        variables of this run, and otherwise the limits of a child. An agent that resumes, and delegates the same with
        the same `id` (made of agent and message unless given), goes on with the execution it has made before. Raises
        DelegationFailed when it does not complete, BudgetExceeded when it may not be made.
        """
        named: object = agent  # callers without types may give the function
        if not isinstance(named, str):
            raise TypeError(f"delegate takes an agent's slug or id, not {agent!r}; for a function, use sub_agent")
        if len(id) > _LONGEST_CALL_ID:
            raise ValueError(f"the id of a delegation has at most {_LONGEST_CALL_ID} characters, not {len(id)}")
        order = Order(limits=Limits.of(**limits), id=id, session=session, env=env or {}, secrets=tuple(secrets))
        return await self._working().crew.delegate(self, agent, message, order)

    async def sub_agent(
        self,
        agent: AgentFunction | Agent,
        message: str = "",
        *,
        name: str = "",
        call_id: str = "",
        **limits: Unpack[GivenLimits],
    ) -> str:
        """Have an agent, of the kinds that a runner serves, do `message` in this process; return its answer.

        It is invoked with a context of its own, a child of this one, and what it reports is marked as its own. `name`
        is what it is called in reports, its function's name unless given; `call_id` is the tool call that asked for it.
        """
        return await self._working().crew.sub_agent(
            self, agent, message, Limits.of(**limits), name=name, call_id=call_id
        )

    def to_wire(self) -> wire.ExecutionContext:
        """Return the context as the API writes it: deadline as the time that remains, without attempt and agent."""
        written = wire.ExecutionContext(
            user_id=self.user,
            parent_execution_id=self.parent_execution or "",
            parent_call_id=self.parent_call or "",
            root_execution_id=self.root_execution,
            thoroughness=wire.Thoroughness.ValueType(self.thoroughness),
            language=self.language,
            allowed_tools=sorted(self.allowed_tools or ()),
            only_allowed_tools=self.allowed_tools is not None,
            correlation_id=self.correlation_id,
            traceparent=self.traceparent,
            baggage=self.baggage,
            stateless=self.stateless,
        )
        if self.budget.limits():
            written.budget.CopyFrom(self.budget.to_wire())
        if self.attributes:
            written.attributes.update(thawed(self.attributes))
        remaining = self.remaining()
        if remaining is not None:
            written.max_duration.FromMilliseconds(max(1, int(remaining * 1000)))
        return written

    def _working(self) -> Work:
        if self._work is None:
            raise TypeError("this context belongs to no work; build_context makes contexts that do")
        return self._work


#: The longest id of a tool call, with room for a number that makes it one of its own.
_LONGEST_CALL_ID: Final = 200
_MADE_HERE: Final = object()
#: The fields that hold more than one value.
_DEEP: Final = frozenset({"baggage", "attributes"})
_FIELDS: Final = tuple(each.name for each in fields(ExecutionContext))


def made(**values: Any) -> ExecutionContext:  # noqa: ANN401  # the fields
    """Make a context of its fields, frozen to the bottom. For `build_context`, which checks them, and nobody else."""
    values |= {name: frozen(values[name]) for name in _DEEP}
    return _bound(ExecutionContext(**values, _made=_MADE_HERE))


def replaced(context: ExecutionContext, **changed: Any) -> ExecutionContext:  # noqa: ANN401  # the fields
    """Return a context with some fields changed. For what makes children; it checks nothing."""
    values = {name: getattr(context, name) for name in _FIELDS}
    values |= changed
    for name in _DEEP & changed.keys():
        values[name] = frozen(values[name])
    return _bound(ExecutionContext(**values, _made=_MADE_HERE))


def bridge_of(context: ExecutionContext) -> Bridge:
    """Return what the threads of a context wait over."""
    return context._working().bridge  # noqa: SLF001  # of a context, defined here


def bridged(context: ExecutionContext, bridge: Bridge) -> ExecutionContext:
    """Return a context whose threads wait over a bridge of their own."""
    return replaced(context, _work=context._working().over(bridge))  # noqa: SLF001  # of a context, made here


def _bound(context: ExecutionContext) -> ExecutionContext:
    """Have what is reported in a context be held to it."""
    if context._work is not None:  # noqa: SLF001  # of a context, made here
        context._work.bind(context)  # noqa: SLF001
    return context


def narrowed(
    context: ExecutionContext,
    limits: Limits,
    call_id: str | None,
    *,
    below: bool,
    report: Reporter | None = None,
    **changed: Any,  # noqa: ANN401  # the fields
) -> ExecutionContext:
    """Return a child of a context within `limits`; `below` is an agent's, one level deeper, otherwise a part of it."""
    budget = context.budget.below() if below else context.budget
    if limits.budget is not None:
        budget = budget.within(limits.budget)
    changed |= {
        "deadline": _earlier(context.deadline, limits.max_duration),
        "budget": budget,
        "thoroughness": min(context.thoroughness, limits.thoroughness or context.thoroughness),
        "allowed_tools": _both(context.allowed_tools, limits.allowed_tools),
        "agent_tools": _both(context.agent_tools, changed.get("agent_tools")),
        "language": limits.language or context.language,
    }
    if limits.attributes is not None:
        changed["attributes"] = limits.attributes
    if call_id and context.execution:
        changed |= {"parent_execution": context.execution, "parent_call": call_id}
    work = context._work  # noqa: SLF001  # of a context, made by a context
    if work is not None:
        changed["_work"] = work.under(budget, call_id, report)
    return replaced(context, **changed)


def frozen(value: Any) -> Any:  # noqa: ANN401  # what JSON can hold
    """Return what JSON can hold as something that nobody can change."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return tuple(frozen(each) for each in value)
    return value


def thawed(value: Any) -> Any:  # noqa: ANN401  # what JSON can hold
    """Return a copy of what `frozen` has made, as JSON writers take it."""
    if isinstance(value, Mapping):
        return {key: thawed(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [thawed(each) for each in value]
    return value


def _earlier(deadline: float | None, max_duration: float | None) -> float | None:
    if max_duration is None:
        return deadline
    asked = time.monotonic() + max_duration
    return asked if deadline is None else min(deadline, asked)


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
