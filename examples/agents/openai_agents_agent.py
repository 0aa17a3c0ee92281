"""An agent of openai-agents, with a tool and a sub-agent, that anybody can run: no model is asked, no key is needed.

    pip install 'runstream[openai-agents]'
    python examples/agents/openai_agents_agent.py --server 127.0.0.1:7400
    runstream run openai-agents-reader "The quick brown fox jumps over the lazy dog"

What stands in for the models are two functions below. With a real one, they go, and each agent names it:

    Agent(name="reader", instructions="…", model="gpt-5.2", tools=[count_words, agent_tool(linguist)])
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from agents import Agent as Reader
from agents import function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from runstream.adapters.openai_agents import OpenAIAgentsAgent, agent_tool
from runstream.runner import Agent, Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.runner import Invocation


def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


def as_reader(said: list[Any]) -> list[Any]:
    """Stand in for the reader's model: ask for both tools at once, then say what they have found."""
    results = {item["call_id"]: item["output"] for item in said if item.get("type") == "function_call_output"}
    if results:
        return [assistant_message(f"It has {results['count']} words. {results['ask']}")]
    text = _asked(said)
    return [
        assistant_message("I count the words, and ask the linguist."),
        function_call("count_words", json.dumps({"text": text}), call_id="count"),
        function_call("linguist", json.dumps({"input": text}), call_id="ask"),
    ]


def as_linguist(said: list[Any]) -> list[Any]:
    """Stand in for the linguist's model."""
    return [assistant_message(f"The longest word is {max(_asked(said).split(), key=len)!r}.")]


def _asked(said: list[Any]) -> str:
    """Return what was asked last."""
    return [str(item["content"]) for item in said if item.get("role") == "user"][-1]


def stand_in(respond: Callable[[list[Any]], list[Any]]) -> ScriptedModel:
    """Make a function a model, for one run: it is asked twice at most."""

    def answer(call: Any) -> ModelStep:  # noqa: ANN401  # the framework's
        said = [{"role": "user", "content": call.input}] if isinstance(call.input, str) else call.input
        return ModelStep(respond(said))

    return ScriptedModel([ModelStep.respond(answer)] * 2)


def reader(invocation: Invocation) -> Reader:
    """Make the agent anew for each invocation, since what stands in for the models serves one run."""
    _ = invocation
    linguist = Reader(name="linguist", model=stand_in(as_linguist))
    return Reader(name="reader", model=stand_in(as_reader), tools=[function_tool(count_words), agent_tool(linguist)])


agents = {
    "openai-agents-reader": Agent(
        OpenAIAgentsAgent(reader),
        description="Reads a text and says what is remarkable about it.",
        tools=("count_words", "linguist"),
    ),
}


def main() -> None:
    """Serve the agent until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:7400", help="HOST:PORT of the Runstream server")
    Runner(parser.parse_args().server, agents=agents).run()


if __name__ == "__main__":
    main()
