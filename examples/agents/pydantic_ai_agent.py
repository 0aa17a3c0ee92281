"""An agent of pydantic-ai, with a tool and a sub-agent, that anybody can run: no model is asked, no key is needed.

    pip install 'runstream[pydantic-ai]'
    python examples/agents/pydantic_ai_agent.py --server 127.0.0.1:7400
    runstream run pydantic-ai-reader "The quick brown fox jumps over the lazy dog"

What stands in for the models are two functions below. With a real one, they go, and each agent names it:

    pydantic_ai.Agent("openai:gpt-5.2", instructions="…", tools=[count_words, ask_linguist])
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import pydantic_ai
from pydantic_ai import RunContext
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from runstream.adapters.pydantic_ai import PydanticAIAgent, sub_agent
from runstream.runner import Agent, Runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def ask_linguist(ctx: RunContext[Any], text: str) -> str:
    """Ask the linguist about a text. What it does is seen as the work of a sub-agent."""
    return str(await sub_agent(ctx, linguist, text))


async def as_reader(messages: list[Any], info: object) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
    """Stand in for the reader's model: ask for both tools at once, then say what they have found."""
    _ = info
    found = {part.tool_name: part.content for part in _parts(messages) if part.part_kind == "tool-return"}
    if not found:
        yield "I count the words, "
        yield "and ask the linguist."
        args = json.dumps({"text": _asked(messages)})
        for place, tool in enumerate(("count_words", "ask_linguist"), start=1):
            yield {place: DeltaToolCall(tool, args)}
    else:
        yield f"It has {found['count_words']} words. "
        yield str(found["ask_linguist"])


async def as_linguist(messages: list[Any], info: object) -> AsyncIterator[str]:
    """Stand in for the linguist's model."""
    _ = info
    yield "The longest word is "
    yield f"{max(_asked(messages).split(), key=len)!r}."


def _parts(messages: list[Any]) -> list[Any]:
    return [part for message in messages for part in message.parts]


def _asked(messages: list[Any]) -> str:
    """Return what was asked last."""
    asked = [str(part.content) for part in _parts(messages) if part.part_kind == "user-prompt"]
    return asked[-1]


linguist = pydantic_ai.Agent(FunctionModel(stream_function=as_linguist), name="linguist")
reader = pydantic_ai.Agent(FunctionModel(stream_function=as_reader), tools=[count_words, ask_linguist])

agents = {
    "pydantic-ai-reader": Agent(
        PydanticAIAgent(reader),
        description="Reads a text and says what is remarkable about it.",
        tools=("count_words", "ask_linguist"),
    ),
}


def main() -> None:
    """Serve the agent until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:7400", help="HOST:PORT of the Runstream server")
    Runner(parser.parse_args().server, agents=agents).run()


if __name__ == "__main__":
    main()
