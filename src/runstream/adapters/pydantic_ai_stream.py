"""The stream of a run of pydantic-ai, narrated.

It is heard by a capability that is added to the run, in the run's own task: so a tool never begins before it was told
that it does, and it is known which one has raised what ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai import messages
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ModelAPIError, RunTimedOut, UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.tools import DeferredToolResults, ToolDenied
from pydantic_ai.usage import UsageLimits

from runstream.adapters.at_work import at_work
from runstream.runner.errors import AgentFailure, DeadlineExceeded, ToolNotAllowed
from runstream.runner.json_safe import to_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from runstream.adapters.narration import Narration
    from runstream.runner.context import ExecutionContext
    from runstream.runner.messages import MessageKind

#: What is the framework's, whose types are not checked.
Theirs = Any
MakeDeps = Callable[["ExecutionContext"], Theirs]

#: How much later than ours the framework's own deadline is, in seconds: the runner's comes first, and tells its reason.
_LATER: Final = 1.0
_MICROS: Final = 1_000_000
#: Why the framework has not run a tool, as we say it.
_REASONS: Final = {"unknown_tool": "TOOL_UNKNOWN", "validation_error": "TOOL_ARGUMENTS_INVALID"}
_DECLINED: Final = "A person did not let the tool run."


class Hearer(AbstractCapability):  # type: ignore[misc]  # of the framework, whose types are not checked
    """Hears what one run does, and tells it; and lets it do what it may."""

    def __init__(self, narration: Narration, owner: str, deps: MakeDeps) -> None:
        """Tell it as done by `owner`: the key of a sub-agent, or empty for the agent itself."""
        self.narration = narration
        self.owner = owner
        self.deps = deps
        self._context = narration.agent_context(owner)
        self._response = 1
        #: The newest message of the response that streams, and of the one before it: the one that asks for tools.
        self._said = ""
        self._asking = ""
        #: What tools have raised, by their calls.
        self._raised: dict[str, Exception] = {}

    def options(self, given: Mapping[str, Theirs]) -> dict[str, Theirs]:
        """Return the options of a run that is heard: those given, within what the context allows."""
        context, remaining = self._context, self._context.remaining()
        limits = given.get("usage_limits") or UsageLimits()
        # Of the other limits, ours come to know first, and which call it is that is too much.
        requests = _least(limits.request_limit, context.left().model_calls)
        return {
            "conversation_id": context.session,
            "timeout": None if remaining is None else remaining + _LATER,
            **given,
            "deps": self.deps(context),
            "usage_limits": replace(limits, request_limit=requests),
            "capabilities": [*(given.get("capabilities") or ()), self],
        }

    @asynccontextmanager
    async def blaming(self) -> AsyncIterator[None]:
        """Say of an error in which call it was raised, and raise those of the framework with a reason."""
        try:
            yield
        except Exception as error:
            failure = self._failure(error)
            for call, raised in self._raised.items():
                if raised is error:
                    await self.narration.tool_ended(call, owner=self.owner, error=failure)
            if failure is error:
                raise
            raise failure from error

    async def prepare_tools(self, ctx: Theirs, tool_defs: list[Theirs]) -> list[Theirs]:
        """Hide the tools that may not be used."""
        _ = ctx
        return [tool for tool in tool_defs if self._context.allows(tool.name)]

    async def on_event(self, ctx: Theirs, *, event: Theirs) -> None:
        """Tell what the model says, what it asks for, and what comes of it."""
        _ = ctx
        match event:
            case messages.PartStartEvent(part=messages.TextPart() as part):  # it has the first token
                await self._say(event.index, part.content)
            case messages.PartStartEvent(part=messages.ThinkingPart() as part):
                await self._say(event.index, part.content, "thinking")
            case messages.PartDeltaEvent(delta=messages.TextPartDelta() as delta):
                await self._say(event.index, delta.content_delta)
            case messages.PartDeltaEvent(delta=messages.ThinkingPartDelta() as delta):
                await self._say(event.index, delta.content_delta or "", "thinking")
            case messages.FunctionToolCallEvent():
                await self._asked(event)
            case messages.FunctionToolResultEvent():
                await self._ended(event.part)

    async def after_model_request(self, ctx: Theirs, *, request_context: Theirs, response: Theirs) -> Theirs:
        """Tell what a response of the model has cost."""
        _ = ctx, request_context
        usage, key = response.usage, f"response-{self._response}"
        self._response += 1
        self._asking, self._said = self._said, ""
        await self.narration.usage(
            key,
            model=response.model_name or "",
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cache_read_tokens,
            cost_micros=int((usage.cost or 0) * _MICROS),
            owner=self.owner,
        )
        return response

    async def wrap_tool_execute(
        self, ctx: Theirs, *, call: Theirs, tool_def: Theirs, args: Theirs, handler: Callable[[Theirs], Theirs]
    ) -> Theirs:
        """Tell that a tool begins, and let it work in a context of its own."""
        _ = ctx, tool_def
        key = call.tool_call_id
        await self.narration.tool_running(key, owner=self.owner)
        before = HEARER.set(self)
        try:
            with at_work(self.narration, key, call.tool_name, owner=self.owner):
                return await handler(args)
        except Exception as error:
            self._raised[key] = error
            raise
        finally:
            HEARER.reset(before)

    async def handle_deferred_tool_calls(self, ctx: Theirs, *, requests: Theirs) -> Theirs:
        """Ask a person about the calls that need an approval. What somebody else is to execute is not ours."""
        _ = ctx
        decided = DeferredToolResults()
        for call in requests.approvals:
            decision = await self.narration.approval(call.tool_call_id, owner=self.owner)
            answer = True if decision.approved else ToolDenied(decision.comment or _DECLINED)
            decided.approvals[call.tool_call_id] = answer
        return decided if decided.approvals else None

    async def _say(self, index: int, text: str, kind: MessageKind = "ai") -> None:
        self._said = f"response-{self._response}-{index}"
        await self.narration.text(text, message=self._said, owner=self.owner, kind=kind)

    async def _asked(self, event: Theirs) -> None:
        call, message = event.part, self._asking
        try:
            await self.narration.tool_asked(
                call.tool_call_id, call.tool_name, call.args, owner=self.owner, message=message
            )
        except ToolNotAllowed:
            if event.args_valid:  # else the framework does not run it, since it was hidden, and tells the model so
                raise

    async def _ended(self, part: Theirs) -> None:
        if part.outcome == "success":
            await self.narration.tool_ended(part.tool_call_id, owner=self.owner, result=part.content)
            return
        error, reason = to_text(part.content), _REASONS.get(part.retry.cause if part.retry else "", "")
        await self.narration.tool_ended(part.tool_call_id, owner=self.owner, error=error or part.outcome, reason=reason)

    def _failure(self, error: Exception) -> Exception:
        """Return an error of the framework as one with a reason; any other as it is."""
        match error:
            case UsageLimitExceeded():
                spent = 0 in self._context.left().limits().values()
                told = f"{str(error).partition('. ')[0]}."  # what follows is for the agent's author
                return AgentFailure("BUDGET_EXCEEDED" if spent else "LIMIT_EXCEEDED", told)
            case RunTimedOut():
                return DeadlineExceeded("the agent")
            case UnexpectedModelBehavior() | ModelAPIError():
                return AgentFailure("MODEL_ERROR", str(error))
        return error


#: What hears the run in which a tool works.
HEARER: ContextVar[Hearer | None] = ContextVar("runstream pydantic-ai run", default=None)


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
