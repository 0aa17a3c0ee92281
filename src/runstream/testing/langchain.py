"""A chat model for tests of agents of LangChain, LangGraph and deepagents: it says what a script says.

    model = ScriptedChatModel(script=[say("Let me see. ", call("add", a=1, b=2)), say("It is 3.")])
    agent = LangGraphAgent(create_agent(model, [add]))

It streams words, arguments of tools and usage, as models do. Nothing of `runstream.testing` imports this module, which
needs LangChain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence  # noqa: TC003  # pydantic looks at the annotations of fields
from typing import TYPE_CHECKING, Any
from uuid import uuid4

try:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
except ImportError as error:
    raise ImportError("runstream.testing.langchain needs LangChain: pip install 'runstream[langgraph]'") from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_WORDS = re.compile(r"\s*\S+\s*|\s+")


def say(text: str = "", *calls: dict[str, Any]) -> AIMessage:
    """Return a message of the model, with the tool calls that it asks for; see `call`."""
    return AIMessage(content=text, tool_calls=list(calls))


def call(name: str, *, id: str = "", **args: object) -> dict[str, Any]:  # noqa: A002  # as models call it
    """Return a tool call. It has an id of its own unless one is given."""
    return {"type": "tool_call", "name": name, "args": args, "id": id or f"call_{uuid4().hex}"}


class ScriptedChatModel(BaseChatModel):  # type: ignore[misc]  # of a package without types here
    """Says what `script` says: messages in order, from the first after each message of a human; or a function of all.

    It remembers nothing: which message is next is told by those before it. So one model serves many runs at once.
    Arguments that are no JSON can be in a list of messages alone; they are not streamed, but said as a whole.
    """

    script: Sequence[AIMessage] | Callable[[list[BaseMessage]], AIMessage]
    model_name: str = "scripted"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: object, **options: object) -> ScriptedChatModel:
        """Take the tools that there are; the script knows which it calls."""
        _ = tools, options
        return self

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        if callable(self.script):
            return self.script(messages)
        since = 0
        for message in messages:
            since = 0 if isinstance(message, HumanMessage) else since + isinstance(message, AIMessage)
        if since >= len(self.script):
            raise AssertionError(f"the script has {len(self.script)} messages, and is asked for another one")
        return self.script[since]

    def _generate(
        self, messages: list[BaseMessage], stop: object = None, run_manager: object = None, **options: object
    ) -> ChatResult:
        _ = stop, run_manager, options
        said = self._next(messages)
        whole = AIMessage(content=said.content, tool_calls=said.tool_calls, usage_metadata=_usage(messages, said))
        return ChatResult(generations=[ChatGeneration(message=whole)])

    def _generate_with_cache(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:  # noqa: ANN401
        if self._streams(messages):
            return super()._generate_with_cache(messages, *rest, **options)
        return self._generate(messages)

    async def _agenerate_with_cache(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:  # noqa: ANN401
        if self._streams(messages):
            return await super()._agenerate_with_cache(messages, *rest, **options)
        return self._generate(messages)

    def _streams(self, messages: list[BaseMessage]) -> bool:
        if callable(self.script):  # it is asked once
            return True
        try:
            json.dumps([asked["args"] for asked in self._next(messages).tool_calls])
        except TypeError:
            return False
        return True

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: object = None,
        run_manager: Any = None,  # noqa: ANN401  # of LangChain
        **options: object,
    ) -> Iterator[ChatGenerationChunk]:
        _ = stop, options
        for chunk in _chunks(messages, self._next(messages)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: object = None,
        run_manager: Any = None,  # noqa: ANN401  # of LangChain
        **options: object,
    ) -> AsyncIterator[ChatGenerationChunk]:
        _ = stop, options
        for chunk in _chunks(messages, self._next(messages)):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _chunks(messages: list[BaseMessage], said: AIMessage) -> Iterator[ChatGenerationChunk]:
    for word in _WORDS.findall(said.text):
        yield ChatGenerationChunk(message=AIMessageChunk(content=word))
    calls = [(asked, json.dumps(asked["args"])) for asked in said.tool_calls]
    calls += [(asked, asked["args"] or "") for asked in said.invalid_tool_calls]
    for index, (asked, args) in enumerate(calls):
        middle = len(args) // 2
        yield _call_chunk(name=asked["name"], args=args[:middle], id=asked["id"], index=index)
        yield _call_chunk(name=None, args=args[middle:], id=None, index=index)
    last = AIMessageChunk(content="", usage_metadata=_usage(messages, said), chunk_position="last")
    yield ChatGenerationChunk(message=last)


def _call_chunk(**fields: object) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[fields]))


def _usage(messages: list[BaseMessage], said: AIMessage) -> dict[str, int]:
    """Count words as tokens."""
    read, written = (sum(len(message.text.split()) for message in each) for each in (messages, [said]))
    return said.usage_metadata or {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
