"""An agent of LangChain, which is a graph of LangGraph, with a tool that a person has to allow.

    pip install 'runstream[langgraph]' langchain
    python examples/agents/langgraph_agent.py --server 127.0.0.1:7400
    runstream run graph-adder "2 and 3"

Its model is a script, so that it runs without a key and without a network.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from runstream.adapters.langgraph import LangGraphAgent
from runstream.runner import Runner
from runstream.testing.langchain import ScriptedChatModel, call, say


@tool  # type: ignore[untyped-decorator]  # LangChain's types are not checked here
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool  # type: ignore[untyped-decorator]  # LangChain's types are not checked here
def publish(text: str) -> str:
    """Publish a text, once a person has said so."""
    return f"published {text!r}"


def script(messages: list[Any]) -> Any:  # noqa: ANN401  # messages of LangChain
    """Say what a model would say next."""
    last = messages[-1]
    if last.type == "human":
        first, second, *_ = [*map(int, re.findall(r"\d+", last.text)), 0, 0]
        return say("Let me add. ", call("add", a=first, b=second))
    if last.name == "add":
        return say(f"It is {last.text}. May I publish that?", call("publish", text=last.text))
    return say("Thank you." if last.status == "success" else "Then I keep it to myself.")


def graph_adder() -> LangGraphAgent:
    """Build the agent. Nothing about it is known to Runstream but that it is a graph."""
    model = ScriptedChatModel(script=script)  # or: init_chat_model("…"), of langchain.chat_models
    asking = HumanInTheLoopMiddleware({"publish": True})
    return LangGraphAgent(create_agent(model, [add, publish], middleware=[asking], checkpointer=InMemorySaver()))


def main() -> None:
    """Serve the agent until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:7400", help="HOST:PORT of the Runstream server")
    Runner(parser.parse_args().server, agents={"graph-adder": graph_adder()}).run()


if __name__ == "__main__":
    main()
