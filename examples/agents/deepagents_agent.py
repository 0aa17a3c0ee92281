"""An agent of deepagents, which plans, and has two sub-agents work side by side.

    pip install 'runstream[deepagents]'
    python examples/agents/deepagents_agent.py --server 127.0.0.1:7400
    runstream run deep-reader "tea and coffee"

Its models are scripts, so that it runs without a key and without a network.
"""

from __future__ import annotations

import argparse
from typing import Any

from deepagents import create_deep_agent
from langchain.agents.middleware import TodoListMiddleware
from langchain_core.tools import tool

from runstream.adapters.langgraph import LangGraphAgent
from runstream.runner import Runner
from runstream.testing.langchain import ScriptedChatModel, call, say

BOOK = {"tea": "Tea is made of leaves.", "coffee": "Coffee is made of beans."}


@tool  # type: ignore[untyped-decorator]  # LangChain's types are not checked here
def look_up(word: str) -> str:
    """Look up a word in the book."""
    return BOOK.get(word, f"Nobody knows about {word}.")


def reader_script(messages: list[Any]) -> Any:  # noqa: ANN401  # messages of LangChain
    """Say what the model of a reader would say next."""
    last = messages[-1]
    return say("Let me see. ", call("look_up", word=last.text)) if last.type == "human" else say(last.text)


def script(messages: list[Any]) -> Any:  # noqa: ANN401  # as above
    """Say what the agent's own model would say next."""
    words = [word for word in messages[-1].text.split() if word != "and"]
    if messages[-1].type == "human":
        return say("I have them read about. ", _todos("in_progress", "pending"), *map(_read, words))
    found = [message.text for message in messages if message.type == "tool" and message.name == "task"]
    if messages[-1].name == "task":
        return say("", _todos("completed", "completed"))
    return say(" ".join(found))


def _read(word: str) -> dict[str, Any]:
    return call("task", description=word, subagent_type="reader")


def _todos(*states: str) -> dict[str, Any]:
    contents = ("Have it read about", "Say what was found")
    return call(
        "write_todos", todos=[{"content": what, "status": state} for what, state in zip(contents, states, strict=True)]
    )


def deep_reader() -> LangGraphAgent:
    """Build the agent. Nothing about it is known to Runstream but that it is a graph."""
    model = ScriptedChatModel(script=script)  # or: init_chat_model("…"), of langchain.chat_models
    reader = {
        "name": "reader",
        "description": "Reads about one thing.",
        "system_prompt": "Look up what you are told.",
        "model": ScriptedChatModel(script=reader_script),
        "tools": [look_up],
    }
    return LangGraphAgent(create_deep_agent(model, subagents=[reader], middleware=[TodoListMiddleware()]))


def main() -> None:
    """Serve the agent until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:7400", help="HOST:PORT of the Runstream server")
    Runner(parser.parse_args().server, agents={"deep-reader": deep_reader()}).run()


if __name__ == "__main__":
    main()
