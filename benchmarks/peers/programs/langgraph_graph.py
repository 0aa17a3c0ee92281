"""LangGraph's work: a graph of one node that does nothing, or streams numbers as custom events."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    """What a run is given: how many numbers to emit, and how many seconds apart."""

    events: int
    pause: float


async def count(state: State) -> State:
    """Emit them."""
    write = get_stream_writer()
    for number in range(state["events"]):
        write({"number": number})
        await asyncio.sleep(state["pause"])  # also without a pause: the loop is shared with the server
    return state


_builder = StateGraph(State)
_builder.add_node("count", count)
_builder.add_edge(START, "count")
_builder.add_edge("count", END)
graph = _builder.compile()
