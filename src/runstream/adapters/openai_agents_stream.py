"""The stream of a run of openai-agents, narrated.

Its stream has the tokens, as they come. Its hooks have the tools, and are called in the run's own task: so a tool never
begins before it was told that it does. A failure has no mark of its own there; it is learnt where the framework makes
the text that the model is told of it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import agents
from agents.exceptions import (
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelBehaviorError,
    ModelRefusalError,
    ModelTimeoutError,
    OutputGuardrailTripwireTriggered,
    UserError,
)
from openai import OpenAIError

from runstream.adapters.openai_agents_craft import REMEMBERED, Crafted, Remembered
from runstream.runner.errors import AgentFailure, ToolNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runstream.adapters.narration import Narration
    from runstream.adapters.transcript import Made
    from runstream.runner.context import ExecutionContext
    from runstream.runner.messages import MessageKind

#: What is the framework's, whose types are not checked.
Theirs = Any
MakeContext = Callable[["ExecutionContext"], Theirs]

#: Events of the model that carry text, and the kind of message that it belongs to.
_TEXTS: Final[Mapping[str, MessageKind]] = {
    "response.output_text.delta": "ai",
    "response.refusal.delta": "ai",
    "response.reasoning_text.delta": "thinking",
    "response.reasoning_summary_text.delta": "thinking",
}
_DECLINED: Final = "A person did not let the tool run."


class Hearer(agents.RunHooks):  # type: ignore[misc]  # of the framework, whose types are not checked
    """Hears what one run does, and tells it; and lets it do what it may."""

    def __init__(self, narration: Narration, owner: str, make_context: MakeContext, run_config: Theirs) -> None:
        """Tell it as done by `owner`: the key of a sub-agent, or empty for the agent itself."""
        self.narration = narration
        self.owner = owner
        self.make_context = make_context
        self.run_config = run_config
        self._context = narration.agent_context(owner)
        self._response = 1
        self._model = ""
        #: The newest message of the response that streams, and of the one before it: the one that asks for tools.
        self._said = ""
        self._asking = ""
        #: Counts the responses that were heard to their end, and not yet acted on.
        self._heard = asyncio.Semaphore(0)
        #: What tools have raised for the model to be told, by their calls.
        self._failed: dict[str, Exception] = {}
        #: The names of the tools at work, by their calls.
        self._at_work: dict[str, str] = {}
        self._config = replace(
            run_config,
            tracing_disabled=True,
            tool_not_found_behavior="return_error_to_model",
            tool_error_formatter=self._format,
        )

    async def run(self, agent: Theirs, message: Theirs, max_turns: int | None, calls: Iterable[Made] = ()) -> Theirs:
        """Run an agent to its end, and return its output; a person is asked whenever it needs to.

        It begins with `calls`, if there are any, as if its model had asked for them.
        """
        before = HEARER.set(self)
        remembered = Remembered(calls) if calls else None
        if remembered is not None:
            self._config.model = remembered  # until it has answered
        options = self._limits(max_turns, more=remembered is not None)
        agent = Crafted(self).agent(agent)
        try:
            while True:
                result = await self._streamed(agent, message, options)
                if not result.interruptions:
                    return result.final_output
                message = result.to_state()
                for item in result.interruptions:
                    await self._decide(message, item)
        except Exception as error:
            failure = self._failure(error)
            await self._blame(error, failure)
            if failure is error:
                raise
            raise failure from error
        finally:
            HEARER.reset(before)

    async def _streamed(self, agent: Theirs, message: Theirs, options: Mapping[str, int]) -> Theirs:
        """Hear a run to its end. What keeps this from going on stops it, and waits until it has stopped."""
        result = agents.Runner.run_streamed(
            agent,
            message,
            context=self.make_context(self._context),
            hooks=self,
            run_config=self._config,
            **options,
        )
        try:
            async with aclosing(result.stream_events()) as events:
                try:
                    async for event in events:
                        await self._hear(event)
                        if not self.owner:  # a sub-agent would begin anew, and use its tools once more
                            await self.narration.safe_point()
                except BaseException:
                    result.cancel()
                    raise
        finally:
            if not result.run_loop_task.done():
                await asyncio.wait((result.run_loop_task,))
        return result

    async def _blame(self, error: Exception, failure: Exception) -> None:
        """Say in which call an error was raised, if that can be known: the framework tells the tool's name at most."""
        found = [call for call, name in self._at_work.items() if str(error).startswith(f"Error running tool {name}:")]
        found = found or list(self._at_work)
        if len(found) == 1:
            await self.narration.tool_ended(found[0], owner=self.owner, error=failure)

    def _limits(self, max_turns: int | None, *, more: bool) -> dict[str, int]:
        """Return how often the model may be called, once more if one answer is remembered."""
        limits = [limit for limit in (max_turns, self._context.left().model_calls) if limit is not None]
        if not limits:
            return {"max_turns": agents.run.DEFAULT_MAX_TURNS + 1} if more else {}
        return {"max_turns": min(limits) + more}

    def allows(self, tool: str) -> bool:
        """Tell whether a tool may be used."""
        return self._context.allows(tool)

    async def _decide(self, state: Theirs, item: Theirs) -> None:
        """Ask a person about a call that needs an approval; those of an agent of `as_tool` were not heard of before."""
        await self.narration.tool_asked(item.call_id, item.name, item.arguments, owner=self.owner)
        decision = await self.narration.approval(item.call_id, owner=self.owner)
        if decision.approved:
            state.approve(item)
        else:
            state.reject(item, rejection_message=decision.comment or _DECLINED)

    async def _hear(self, event: Theirs) -> None:
        """Tell what the model says, and which agent goes on in place of this one."""
        if event.type == "run_item_stream_event" and event.name == "handoff_occured":
            given = event.item.raw_item
            await self.narration.tool_ended(given["call_id"], owner=self.owner, result=given["output"])
        if event.type != "raw_response_event":
            return
        data = event.data
        if data.type in _TEXTS:
            self._said = f"response-{self._response}-{data.output_index}"
            await self.narration.text(data.delta, message=self._said, owner=self.owner, kind=_TEXTS[data.type])
        elif data.type == "response.completed":
            self._model = data.response.model
            self._asking, self._said = self._said, ""
            self._heard.release()

    async def on_llm_end(self, context: Theirs, agent: Theirs, response: Theirs) -> None:
        """Tell what a response of the model has cost, and what it asks for, once what it says was heard."""
        _ = context
        await self._heard.acquire()
        if response.response_id == REMEMBERED:
            self._config.model = self.run_config.model
        else:
            await self._spent(response)
        for call in response.output:
            if call.type == "function_call":
                await self._asked(call, agent)

    async def _spent(self, response: Theirs) -> None:
        usage, key = response.usage, f"response-{self._response}"
        self._response += 1
        await self.narration.usage(
            key,
            model=self._model or "",
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.input_tokens_details.cached_tokens or 0,
            owner=self.owner,
        )

    async def on_tool_start(self, context: Theirs, agent: Theirs, tool: Theirs) -> None:
        """Tell that a tool begins."""
        _ = agent
        call = _call(context)
        if call:
            self._at_work[call] = tool.name
            await self.narration.tool_running(call, owner=self.owner)

    async def on_tool_end(self, context: Theirs, agent: Theirs, tool: Theirs, result: Theirs) -> None:
        """Tell what a tool has returned, or that it has failed and the model is told so."""
        _ = agent, tool
        call = _call(context)
        self._at_work.pop(call, None)
        raised = self._failed.pop(call, None)
        if raised is None:
            await self.narration.tool_ended(call, owner=self.owner, result=result)
            return
        broken = isinstance(raised, ModelBehaviorError)  # of the framework, when the arguments are no JSON it takes
        reason = "TOOL_ARGUMENTS_INVALID" if broken else getattr(raised, "reason", "")
        error = f"{type(raised).__name__}: {raised}"
        await self.narration.tool_ended(call, owner=self.owner, error=error, reason=reason)

    async def _asked(self, call: Theirs, agent: Theirs) -> None:
        try:
            await self.narration.tool_asked(
                call.call_id, call.name, call.arguments, owner=self.owner, message=self._asking
            )
        except ToolNotAllowed:
            if agent.mcp_servers:  # else it was hidden, so the framework does not run it, and tells the model so
                raise

    async def _format(self, told: Theirs) -> str | None:
        """Learn of a tool that has failed, or that there is not; the text for the model is as it were without us."""
        if told.kind == "tool_exception":
            self._failed[told.call_id] = told.error
        elif told.kind == "tool_not_found":
            error = told.default_message
            await self.narration.tool_ended(told.call_id, owner=self.owner, error=error, reason="TOOL_UNKNOWN")
        formatter = self.run_config.tool_error_formatter
        text: Theirs = None if formatter is None else formatter(told)
        text = await text if inspect.isawaitable(text) else text
        return text if isinstance(text, str) else None

    def _failure(self, error: Exception) -> Exception:
        """Return an error of the framework as one with a reason, or as what a tool has raised; any other as it is."""
        match error:
            case MaxTurnsExceeded():
                spent = self._context.left().model_calls == 0
                return AgentFailure("BUDGET_EXCEEDED" if spent else "LIMIT_EXCEEDED", f"{error.message}.")
            case InputGuardrailTripwireTriggered() | OutputGuardrailTripwireTriggered():
                return AgentFailure("GUARDRAIL_TRIPPED", f"{error}.")
            case ModelBehaviorError() | ModelRefusalError() | ModelTimeoutError() | OpenAIError():
                return AgentFailure("MODEL_ERROR", str(error))
            case UserError(__cause__=Exception() as cause):
                return cause
        return error


#: What hears the run in which a tool works.
HEARER: ContextVar[Hearer | None] = ContextVar("runstream openai-agents run", default=None)


def _call(context: Theirs) -> str:
    """Return the id of the call that a hook is about; tools of the framework's own kinds do not tell."""
    return getattr(context, "tool_call_id", "")
