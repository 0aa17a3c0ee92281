"""A tool is called in the context that is given, and everything that becomes of it is reported under the right call."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runstream.runner import (
    AgentFailure,
    Approval,
    Budget,
    BudgetExceeded,
    ContextInvalid,
    DeadlineExceeded,
    ExecutionContext,
    Paused,
    ReportClosed,
    ToolArgumentsInvalid,
    ToolBroke,
    ToolDispatcher,
    ToolNotAllowed,
    ToolRegistry,
    ToolUnknown,
    build_context,
    current_context,
    tracing,
)
from runstream.runner.aside import aside
from runstream.runner.context.session import context_of_session
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_REJECT,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_WAITING_FOR_APPROVAL,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    TOOL_CALL_SKIPPED,
    AgentExecutionStatus,
    ToolCall,
)
from runstream.v1.agent_execution_service_pb2 import SubmitApprovalInput
from tests.making import an_agent, instance, session
from tests.runner.served import SECONDS, said, serving_agents
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from runstream.runner import Invocation

#: A time in which nothing happens that is not to happen: what waits for it waits for ever.
SHORT = 0.01


class Heard:
    """What was reported outside of any execution."""

    def __init__(self) -> None:
        self.deltas: list[AgentExecutionStatus] = []

    def context(self, variables: dict[str, str] | None = None, **given: Any) -> ExecutionContext:  # noqa: ANN401  # as build_context
        """Make a context that is heard."""
        budget = given.get("budget")
        return build_context(work=aside(budget, variables, hear=self.deltas.append), **given)

    @property
    def calls(self) -> dict[str, ToolCall]:
        """The tool calls as they stand, by id."""
        calls: dict[str, ToolCall] = {}
        for delta in self.deltas:
            for call in delta.tool_calls:
                calls.setdefault(call.id, ToolCall()).MergeFrom(call)
        return calls

    @property
    def last(self) -> ToolCall:
        """The last call that was begun."""
        return list(self.calls.values())[-1]

    @property
    def stages(self) -> list[int]:
        """The statuses that were told, in order."""
        return [call.status for delta in self.deltas for call in delta.tool_calls]


def dispatching(*functions: Callable[..., Any], **options: Any) -> ToolDispatcher:  # noqa: ANN401  # as add
    """Make a dispatcher of some functions."""
    registry = ToolRegistry()
    for function in functions:
        registry.add(function, **options)
    return ToolDispatcher(registry)


async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


def double(number: int) -> int:
    """Double it."""
    return number * 2


async def test_a_tool_goes_through_its_states_and_returns_what_it_returns(tmp_path: Path) -> None:
    found = {"titles": ("Emma",), "where": object()}

    def search(query: str, context: ExecutionContext) -> object:
        assert (query, context.parent_call, current_context()) == ("shells", "call-7", context)
        return found

    dispatcher = dispatching(search)

    async def agent(invocation: Invocation) -> str:
        context = invocation.context
        assert await dispatcher.call("search", '{"query": "shells"}', context, call_id="call-7") is found
        assert current_context() is context
        return "done"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
        changes = await served.changes(state.metadata.id)
    assert said(state) == ["done"], state.status.error
    (call,) = state.status.tool_calls
    assert (call.id, call.name, call.status, call.reason) == ("call-7", "search", TOOL_CALL_COMPLETED, "")
    assert call.args["query"] == "shells"
    assert call.result.startswith('{"titles": ["Emma"]')
    stages = [call.status for change in changes for call in change.status.tool_calls]
    assert stages == [TOOL_CALL_PENDING, TOOL_CALL_RUNNING, TOOL_CALL_COMPLETED]


async def test_calls_within_a_tool_stand_under_its_call_however_they_are_made(tmp_path: Path) -> None:
    async def outer(context: ExecutionContext) -> int:
        return await dispatcher.call("middle", {}, context, call_id="2") + 1  # type: ignore[no-any-return]

    def middle(context: ExecutionContext) -> int:
        context.wait(context.report.text("in the middle"))
        return dispatcher.call_sync("double", {"number": 3}, context, call_id="3") + 1  # type: ignore[no-any-return]

    dispatcher = dispatching(outer, middle, double)

    async def agent(invocation: Invocation) -> str:
        before = await dispatcher.call("double", {"number": 1}, invocation.context, call_id="0")
        return f"{before} {await dispatcher.call('outer', {}, invocation.context, call_id='1')}"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert said(state) == ["in the middle", "2 8"], state.status.error
    assert {call.id: call.parent_call_id for call in state.status.tool_calls} == {"0": "", "1": "", "2": "1", "3": "2"}
    assert {call.status for call in state.status.tool_calls} == {TOOL_CALL_COMPLETED}


def raises(error: BaseException) -> Callable[[], Awaitable[None]]:
    """Make a tool that raises something."""

    async def broken() -> None:
        raise error

    return broken


async def test_every_refusal_is_reported_as_a_failed_call_with_its_reason_and_runs_nothing(tmp_path: Path) -> None:
    ran = []

    def search(query: str) -> None:
        ran.append(query)

    dispatcher = dispatching(search, double)
    met: list[AgentFailure] = []

    async def agent(invocation: Invocation) -> None:
        context = invocation.context
        for name, arguments, within in (
            ("serach", {}, context),
            ("search", {}, context.child(allowed_tools=["double"])),
            ("search", {"querry": 1}, context),
            ("search", "{", context),
            ("search", {"query": "x"}, context.child(budget=Budget(tool_calls=0))),
        ):
            with pytest.raises(AgentFailure) as raised:
                await dispatcher.call(name, arguments, within)
            met.append(raised.value)

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert state.status.phase == EXECUTION_COMPLETED, state.status.error
    assert ran == []
    assert [type(error) for error in met] == [
        *(ToolUnknown, ToolNotAllowed, ToolArgumentsInvalid, ToolArgumentsInvalid, BudgetExceeded),
    ]
    assert [error.reason for error in met] == [call.reason for call in state.status.tool_calls]
    assert {call.status for call in state.status.tool_calls} == {TOOL_CALL_FAILED}
    assert {call.started_at for call in state.status.tool_calls} == {""}
    assert "Did you mean 'search'?" in state.status.tool_calls[0].error
    assert state.status.tool_calls[3].args["arguments"] == "{"
    assert isinstance(met[0], LookupError)
    assert isinstance(met[1], PermissionError)
    assert isinstance(met[2], ValueError)


async def test_an_agent_that_does_not_catch_a_refusal_fails_with_its_reason(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await dispatching(double).call("triple", {}, invocation.context)

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "TOOL_UNKNOWN")


async def test_what_a_context_does_not_allow_does_not_tell_whether_it_exists() -> None:
    def search() -> None: ...

    heard = Heard()
    context = heard.context(allowed_tools=["searching"])
    dispatcher = dispatching(double)
    for name in ("double", "quadruple"):
        with pytest.raises(ToolNotAllowed, match=f"^The tool '{name}' is not allowed here.$"):
            await dispatcher.call(name, {"x": "wrong"}, context)
    with pytest.raises(ToolUnknown) as raised:
        await dispatching(double, search).call("searching", {}, context)
    assert raised.value.near == ()


async def test_names_are_compared_as_they_are_sanitised() -> None:
    heard = Heard()
    dispatcher = dispatching(double, name="double it!")
    assert await dispatcher.call("double.it?", {"number": 2}, heard.context(allowed_tools=["double/it_"])) == 4
    assert heard.last.name == "double_it_"


async def test_what_a_tool_raises_is_told_without_secrets_and_kept_as_the_cause() -> None:
    heard = Heard()
    cause = LookupError("no entry for hush-hush")
    with pytest.raises(ToolBroke) as raised:
        await dispatching(raises(cause)).call("broken", "", heard.context({"TOKEN": "hush-hush"}))
    assert raised.value.__cause__ is cause
    assert str(raised.value) == "The tool 'broken' failed: LookupError: no entry for ***"
    assert (heard.last.status, heard.last.reason) == (TOOL_CALL_FAILED, "TOOL_ERROR")
    assert heard.last.error == "ToolBroke: The tool 'broken' failed: LookupError: no entry for ***"


async def test_a_tool_that_exits_ends_itself_alone() -> None:
    with pytest.raises(ToolBroke, match=r"the tool 'broken' called exit\(3\)"):
        await dispatching(raises(SystemExit(3))).call("broken", {}, Heard().context())


@pytest.mark.parametrize(
    "error", [AgentFailure("NO_BOOKS", "There are none."), BudgetExceeded("tokens", 7), ReportClosed(), Paused()]
)
async def test_what_has_a_meaning_of_its_own_passes_as_it_is(error: BaseException) -> None:
    heard = Heard()
    with pytest.raises(type(error)) as raised:
        await dispatching(raises(error)).call("broken", {}, heard.context())
    assert raised.value is error
    assert heard.last.reason == getattr(error, "reason", "")
    group = ExceptionGroup if isinstance(error, Exception) else BaseExceptionGroup
    with pytest.raises((type(error), BaseExceptionGroup)):
        await dispatching(raises(group("tasks", [error]))).call("broken", {}, heard.context())  # type: ignore[type-var]
    assert heard.last.reason == getattr(error, "reason", "")


async def test_a_tool_has_the_time_that_its_context_has() -> None:
    heard = Heard()
    with pytest.raises(DeadlineExceeded, match="before the tool 'hang' had ended"):
        await dispatching(hang).call("hang", {}, heard.context(max_duration=SHORT))
    assert heard.stages == [TOOL_CALL_PENDING, TOOL_CALL_RUNNING, TOOL_CALL_FAILED]
    assert heard.last.reason == "DEADLINE_EXCEEDED"


async def test_a_tool_whose_time_is_over_does_not_begin() -> None:
    heard = Heard()
    context = heard.context(max_duration=1e-9)
    while context.remaining():
        pass
    with pytest.raises(DeadlineExceeded):
        await dispatching(double).call("double", {"number": 1}, context)
    assert heard.stages == [TOOL_CALL_PENDING, TOOL_CALL_FAILED]


async def test_a_timeout_of_the_tools_own_is_not_the_deadlines() -> None:
    with pytest.raises(ToolBroke, match="TimeoutError"):
        await dispatching(raises(TimeoutError("the page is slow"))).call("broken", {}, Heard().context(max_duration=60))


async def test_a_plain_function_whose_time_is_over_does_nothing_more_that_counts() -> None:
    heard = Heard()
    go_on, over = threading.Event(), threading.Event()
    met: list[BaseException] = []

    def late(context: ExecutionContext) -> None:
        try:
            go_on.wait(SECONDS)
            context.wait(context.report.text("too late"))
        except BaseException as error:  # noqa: BLE001  # what is tested
            met.append(error)
        finally:
            over.set()

    with pytest.raises(DeadlineExceeded):
        await dispatching(late).call("late", {}, heard.context(max_duration=SHORT))
    go_on.set()
    assert await asyncio.to_thread(over.wait, SECONDS)
    assert [type(error) for error in met] == [asyncio.CancelledError]
    assert not any(delta.messages for delta in heard.deltas)


async def test_a_cancelled_call_is_interrupted() -> None:
    heard = Heard()
    began = asyncio.Event()

    async def wait_long() -> None:
        began.set()
        await hang()

    call = asyncio.create_task(dispatching(wait_long).call("wait_long", {}, heard.context()))
    await began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert heard.last.status == TOOL_CALL_INTERRUPTED


async def test_each_call_is_a_span_within_the_one_that_called(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("runstream.runner"))

    def outer(context: ExecutionContext) -> None:
        dispatcher.call_sync("double", {"number": 1}, context, call_id="inner")

    dispatcher = dispatching(outer, double, raises(LookupError("no")))
    context = Heard().context(user="ada")
    await dispatcher.call("outer", {}, context, call_id="outer-1")
    with pytest.raises(ToolBroke):
        await dispatcher.call("broken", {}, context)
    inner, outer_span, broken = exporter.get_finished_spans()
    assert [span.name for span in (inner, outer_span, broken)] == [
        *("execute_tool double", "execute_tool outer", "execute_tool broken"),
    ]
    attributes = dict(outer_span.attributes or {})
    assert (attributes["gen_ai.tool.name"], attributes["gen_ai.tool.call.id"]) == ("outer", "outer-1")
    assert attributes["enduser.id"] == "ada"
    within = outer_span.get_span_context()
    assert inner.parent is not None
    assert within is not None
    assert inner.parent.span_id == within.span_id
    assert dict(broken.attributes or {})["error.type"] == "LookupError"


async def test_a_budget_is_shared_by_all_that_a_call_leads_to() -> None:
    heard = Heard()

    async def many(context: ExecutionContext) -> int:
        for number in range(9):
            await dispatcher.call("double", {"number": number}, context)
        return 9

    dispatcher = dispatching(many, double)
    context = heard.context(budget=Budget(tool_calls=4))
    with pytest.raises(BudgetExceeded):
        await dispatcher.call("many", {}, context)
    assert context.left().tool_calls == 0
    statuses = [call.status for call in heard.calls.values()]
    assert statuses == [TOOL_CALL_FAILED, *[TOOL_CALL_COMPLETED] * 3, TOOL_CALL_FAILED]
    assert [call.reason for call in heard.calls.values()][-1] == heard.calls["call-1-1"].reason == "BUDGET_EXCEEDED"


async def test_a_refused_call_costs_nothing() -> None:
    context = Heard().context(budget=Budget(tool_calls=1))
    dispatcher = dispatching(double)
    with pytest.raises(ToolArgumentsInvalid):
        await dispatcher.call("double", {}, context)
    assert await dispatcher.call("double", {"number": 1}, context) == 2


@pytest.mark.parametrize("blocks", [True, False])
async def test_calls_at_the_same_time_do_not_see_each_others_contexts(blocks: bool) -> None:  # noqa: FBT001  # a case
    met = threading.Barrier(50) if blocks else asyncio.Barrier(50)

    async def seen_async(context: ExecutionContext, number: int) -> list[object]:
        await met.wait()  # type: ignore[misc]  # of asyncio
        return [context.user, current_context().user, context.secret("KEY"), number]

    def seen_plain(context: ExecutionContext, number: int) -> list[object]:
        met.wait(SECONDS)  # type: ignore[call-arg]  # of threads
        inner = dispatcher.call_sync("double", {"number": number}, current_context())
        return [context.user, current_context().user, context.secret("KEY"), inner // 2]

    dispatcher = dispatching(seen_plain if blocks else seen_async, double)
    name = dispatcher.registry.names[0]
    all_heard = [Heard() for _ in range(50)]
    contexts = [each.context({"KEY": f"key-{n}"}, user=f"user-{n}") for n, each in enumerate(all_heard)]
    async with asyncio.timeout(SECONDS):
        calls = (dispatcher.call(name, {"number": n}, context) for n, context in enumerate(contexts))
        results = await asyncio.gather(*calls)
    assert results == [[f"user-{n}", f"user-{n}", f"key-{n}", n] for n in range(50)]
    for number, heard in enumerate(all_heard):
        assert {call.args["number"] for call in heard.calls.values()} == {number}
        assert {call.status for call in heard.calls.values()} == {TOOL_CALL_COMPLETED}


async def test_a_tool_that_asks_runs_when_a_person_lets_it(tmp_path: Path) -> None:
    ran = []

    def deploy() -> None:
        ran.append(1)

    dispatcher = dispatching(deploy, approval=Approval())

    async def agent(invocation: Invocation) -> None:
        await dispatcher.call("deploy", {}, invocation.context, call_id="d")

    async with serving_agents(tmp_path / "data", agent) as served:
        execution = await served.create()
        await served.in_phase(execution, EXECUTION_WAITING_FOR_APPROVAL)
        await served.client.executions.SubmitApproval(
            SubmitApprovalInput(agent_execution_id=execution, tool_call_id="d", action=APPROVAL_REJECT)
        )
        state = await served.ended(execution)
    assert (state.status.phase, state.status.reason, ran) == (EXECUTION_FAILED, "TOOL_REJECTED", [])
    assert state.status.tool_calls[0].status == TOOL_CALL_SKIPPED


async def test_a_question_is_withdrawn_when_the_time_of_its_call_is_over(tmp_path: Path) -> None:
    dispatcher = dispatching(hang, approval=Approval())

    async def agent(invocation: Invocation) -> str:
        with pytest.raises(DeadlineExceeded):
            await dispatcher.call("hang", {}, invocation.context.child(max_duration=SHORT), call_id="h")
        return "so be it"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert said(state) == ["so be it"], state.status.error
    assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED


async def test_outside_of_any_execution_there_is_nobody_to_ask() -> None:
    with pytest.raises(AgentFailure) as raised:
        await dispatching(hang, approval=Approval()).call("hang", {}, Heard().context())
    assert raised.value.reason == "NOBODY_TO_ASK"


async def whose(context: ExecutionContext) -> list[object]:
    """Tell what the context is."""
    return [context.session, context.stateless, context.user, context.org]


async def test_a_call_by_session_is_one_in_a_context_made_of_it(tmp_path: Path) -> None:
    dispatcher = dispatching(whose)
    async with serving(tmp_path / "data") as server, asyncio.timeout(SECONDS):
        here = await server.client.instances.Create(instance(await an_agent(server.client)))
        made = await server.client.sessions.Create(session(here.metadata.id))
        for where in (server.server.address, server.client.channel):
            with pytest.warns(DeprecationWarning, match="use call, with the context"):
                told = await dispatcher.call_in_session("whose", {}, made.metadata.id, server=where, user="ada")
            assert told == [made.metadata.id, False, "ada", made.metadata.org]
        for wrong in ("ses_00000000000000000000000000", "nonsense", ""):
            with pytest.raises(ContextInvalid, match="session must be the id of a session"):
                await context_of_session(server.client.channel, wrong)


async def test_the_word_that_stands_for_no_session_reads_none() -> None:
    """The address is of nobody: whoever called it would wait for ever."""
    with pytest.warns(match="call_in_session is"), pytest.warns(match="'stateless_execution' is deprecated"):
        told = await dispatching(whose).call_in_session("whose", {}, "stateless_execution", server="127.0.0.1:1")
    assert told == [None, True, "", ""]
