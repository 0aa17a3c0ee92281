"""Tracing: OpenTelemetry spans of executions, agents and tools. Without a tracer that is set up, they cost nothing.

Names and attributes are those of the semantic conventions for generative AI, and `runstream.…` beside them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runstream.runner.context.value import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

    from runstream.runner.context.value import ExecutionContext

Operation = Literal["execution", "invoke_agent", "execute_tool"]

_KINDS: Final = {
    "execution": trace.SpanKind.CONSUMER,
    "invoke_agent": trace.SpanKind.INTERNAL,
    "execute_tool": trace.SpanKind.INTERNAL,
}
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACER: Final = trace.get_tracer("runstream.runner")


@contextmanager
def spanned(
    operation: Operation, name: str, context: ExecutionContext, **attributes: AttributeValue
) -> Iterator[ExecutionContext]:
    """Do what is done in the block in a span, and give it the context with the span as its trace."""
    if not is_traced():
        yield context
        return
    span = begin(operation, name, context, **attributes)
    try:
        with inside(span, context) as within:
            yield within
    except BaseException as error:
        finish(span, error)
        raise
    finish(span)


@contextmanager
def in_spans(agent: str, context: ExecutionContext) -> Iterator[ExecutionContext]:
    """Do what is done in the block in the span of an execution, and in that of its agent within it."""
    if not is_traced():
        yield context
        return
    with (
        spanned("execution", agent, context) as of_execution,
        spanned("invoke_agent", agent, of_execution) as within,
    ):
        yield within


def is_traced() -> bool:
    """Tell whether anybody has set up OpenTelemetry; without, spans are not even begun."""
    return not (isinstance(_TRACER, trace.ProxyTracer) and isinstance(get_tracer_provider(), ProxyTracerProvider))


def begin(operation: Operation, name: str, context: ExecutionContext, **attributes: AttributeValue) -> trace.Span:
    """Begin a span: a child of the current one, else of the caller's, which may be in another process."""
    return _TRACER.start_span(
        f"{operation} {name}".rstrip(),
        _parent(context),
        kind=_KINDS[operation],
        attributes={"gen_ai.operation.name": operation, **_attributes(context), **attributes},
    )


@contextmanager
def inside(span: trace.Span, context: ExecutionContext) -> Iterator[ExecutionContext]:
    """Make a span the current one for the length of the block, and give it the context with the span as its trace."""
    token = attach(trace.set_span_in_context(span, _parent(context)))
    try:
        yield replaced(context, traceparent=current_traceparent()) if span.is_recording() else context
    finally:
        detach(token)


def finish(span: trace.Span, error: BaseException | None = None) -> None:
    """End a span. An error is told by the name of its type: messages may hold what traces must not."""
    if error is not None:
        span.set_attribute("error.type", type(error).__name__)
        if isinstance(error, Exception):
            span.set_status(trace.StatusCode.ERROR)
    span.end()


def current_traceparent() -> str:
    """Return the current span as W3C trace context; empty when there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def _parent(context: ExecutionContext) -> Context:
    """Return the OpenTelemetry context to begin in: the current one, with the caller's trace if it has no span."""
    found = get_current()
    if not trace.get_current_span(found).get_span_context().is_valid and context.traceparent:
        found = _PROPAGATOR.extract({"traceparent": context.traceparent}, found)
    known = baggage.get_all(found)
    for key, value in context.baggage.items():
        if key not in known:
            found = baggage.set_baggage(key, value, found)
    return found


def _attributes(context: ExecutionContext) -> dict[str, AttributeValue]:
    """Return the ids of a context that are there."""
    found: dict[str, AttributeValue] = {
        "runstream.execution.id": context.execution,
        "runstream.execution.root_id": context.root_execution,
        "runstream.execution.attempt": context.attempt,
        "runstream.parent.execution_id": context.parent_execution or "",
        "runstream.parent.call_id": context.parent_call or "",
        "runstream.org": context.org,
        "runstream.correlation_id": context.correlation_id,
        "enduser.id": context.user,
        "gen_ai.agent.id": context.agent,
        "gen_ai.conversation.id": context.session or "",
    }
    return {name: value for name, value in found.items() if value}
