"""Tracing: spans of executions, agents and tools, that go on with the caller's trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runstream.runner import ExecutionContext, Invocation, ToolDispatcher, ToolRegistry, build_context, tracing
from runstream.testing import local_server
from runstream.v1.agent_execution_pb2 import AgentExecution

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Have the SDK's spans recorded here, and nowhere else."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("runstream.runner"))
    return exporter


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Return the spans by name."""
    return {span.name: span for span in exporter.get_finished_spans()}


def identified(span: ReadableSpan) -> tuple[str, str]:
    """Return a span's own id and its parent's."""
    own = span.get_span_context()
    assert own is not None
    assert trace.format_trace_id(own.trace_id) == TRACE_ID, "it is the caller's trace"
    parent = "" if span.parent is None else trace.format_span_id(span.parent.span_id)
    return trace.format_span_id(own.span_id), parent


def traced() -> AgentExecution:
    """Return an execution that a caller with a trace creates."""
    request = AgentExecution()
    request.spec.message = "go"
    request.spec.context.traceparent = TRACEPARENT
    request.spec.context.user_id = "ada"
    request.spec.context.baggage["tenant"] = "acme"
    return request


async def test_executions_agents_and_sub_agents_are_nested_spans_of_the_callers_trace(
    spans: InMemorySpanExporter,
) -> None:
    seen: list[object] = []

    async def below(invocation: Invocation) -> None:
        seen.append(baggage.get_baggage("tenant"))
        seen.append(invocation.context.traceparent)

    async def boss(invocation: Invocation) -> None:
        await invocation.context.sub_agent(below, "x")

    async with local_server() as server:
        state = await server.run(boss, traced(), name="boss")
    found = named(spans)
    execution, parent = identified(found["execution boss"])
    agent, above = identified(found["invoke_agent boss"])
    sub_agent, above_that = identified(found["invoke_agent below"])
    assert (parent, above, above_that) == (SPAN_ID, execution, agent)
    assert seen == ["acme", f"00-{TRACE_ID}-{sub_agent}-01"]
    attributes = found["execution boss"].attributes or {}
    assert attributes["runstream.execution.id"] == state.id
    assert attributes["runstream.execution.attempt"] == 1
    assert attributes["enduser.id"] == "ada"
    assert attributes["gen_ai.conversation.id"] == state.session_id
    assert (found["invoke_agent below"].attributes or {})["gen_ai.operation.name"] == "invoke_agent"


async def test_what_is_delegated_is_in_the_same_trace_wherever_it_runs(spans: InMemorySpanExporter) -> None:
    async def below(invocation: Invocation) -> str:
        return invocation.message

    async def boss(invocation: Invocation) -> str:
        return str(await invocation.context.delegate("below", "x"))

    async with local_server() as server:
        await server.serve({"boss": boss, "below": below})
        (await server.run("boss", traced())).expect()
    found = named(spans)
    boss_id, _ = identified(found["invoke_agent boss"])
    _, parent = identified(found["execution below"])
    assert parent == boss_id


async def test_each_call_of_a_tool_is_a_span_and_what_it_calls_is_below_it(spans: InMemorySpanExporter) -> None:
    registry = ToolRegistry()
    dispatcher = ToolDispatcher(registry)

    @registry.tool
    def inner(context: ExecutionContext) -> str:
        return context.traceparent

    @registry.tool
    async def outer(context: ExecutionContext) -> str:
        return str(await dispatcher.call("inner", {}, context))

    async def boss(invocation: Invocation) -> str:
        async with invocation.report.tool("plain", id="c-1"):
            pass
        return str(await dispatcher.call("outer", {}, invocation.context, call_id="c-2"))

    async with local_server() as server:
        state = (await server.run(boss, traced(), name="boss")).expect()
    found = named(spans)
    agent, _ = identified(found["invoke_agent boss"])
    plain, of_plain = identified(found["execute_tool plain"])
    outer_id, of_outer = identified(found["execute_tool outer"])
    inner_id, of_inner = identified(found["execute_tool inner"])
    assert (of_plain, of_outer, of_inner) == (agent, agent, outer_id)
    assert len({plain, outer_id, inner_id}) == 3
    assert state.answer == f"00-{TRACE_ID}-{inner_id}-01"
    attributes = found["execute_tool inner"].attributes or {}
    assert attributes["runstream.parent.call_id"] == "c-2"
    assert attributes["gen_ai.tool.name"] == "inner"
    assert (found["execute_tool plain"].attributes or {})["gen_ai.tool.call.id"] == "c-1"


async def test_a_failure_marks_the_span_and_tells_no_message(spans: InMemorySpanExporter) -> None:
    async def boss(invocation: Invocation) -> None:
        raise PermissionError(invocation.context.secret("TOKEN"))

    async with local_server() as server:
        state = await server.run(boss, traced(), name="boss", secrets={"TOKEN": "hush-hush"})
    assert state.phase == "failed"
    for span in named(spans).values():
        assert span.status.status_code is trace.StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "PermissionError"
        assert "hush-hush" not in span.to_json()


async def test_without_a_tracer_the_callers_trace_goes_through() -> None:
    seen: list[str] = []

    async def below(invocation: Invocation) -> None:
        seen.append(invocation.context.traceparent)

    async def boss(invocation: Invocation) -> None:
        await invocation.context.delegate("below", "x")

    async with local_server() as server:
        await server.serve({"boss": boss, "below": below})
        (await server.run("boss", traced())).expect()
    assert seen == [TRACEPARENT]


def test_a_context_without_a_trace_begins_one(spans: InMemorySpanExporter) -> None:
    context = build_context(org="acme")
    with tracing.spanned("invoke_agent", "x", context) as within:
        assert within.traceparent
        assert context.traceparent == ""
    (span,) = spans.get_finished_spans()
    assert span.parent is None
