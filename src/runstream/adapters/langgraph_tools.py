"""The tools of a LangGraph graph, kept from ending the runner. The user's graph, nodes and tools stay as they are."""

from __future__ import annotations

import copy
import functools
from typing import Any

from langgraph.prebuilt import ToolNode

from runstream.runner.exits import exits_contained

#: What is LangGraph's, whose types are not checked.
Theirs = Any


def contained(graph: Theirs) -> Theirs:
    """Return a graph whose tools cannot end the process, nor those of graphs that are its nodes.

    A tool that is called by anything but a `ToolNode` stays as it is.
    """
    nodes = getattr(graph, "nodes", {})
    changed = {name: _node(node) for name, node in nodes.items()}
    if all(changed[name] is nodes[name] for name in changed):
        return graph
    return graph.copy(update={"nodes": changed})


def _node(node: Theirs) -> Theirs:
    bound = getattr(node, "bound", None)
    if isinstance(bound, ToolNode):
        return node.copy(update={"bound": _tool_node(bound)})
    if not hasattr(bound, "astream_events") or not hasattr(bound, "nodes"):
        return node
    inner = contained(bound)
    return node if inner is bound else node.copy(update={"bound": inner, "subgraphs": [inner]})


def _tool_node(node: Theirs) -> Theirs:
    made = copy.copy(node)
    made._tools_by_name = {name: _tool(tool) for name, tool in node.tools_by_name.items()}  # noqa: SLF001
    made.func, made.afunc = made._func, made._afunc  # noqa: SLF001  # those of the copy
    return made


def _tool(tool: Theirs) -> Theirs:
    """Return a tool whose function stays: LangChain may run it as a task of its own, which nothing around it keeps."""
    run, arun = tool._run, tool._arun  # noqa: SLF001

    @functools.wraps(run)
    def stay(*args: Theirs, **options: Theirs) -> Theirs:
        with exits_contained("the tool"):
            return run(*args, **options)

    @functools.wraps(arun)
    async def astay(*args: Theirs, **options: Theirs) -> Theirs:
        with exits_contained("the tool"):
            return await arun(*args, **options)

    made = tool.model_copy()
    object.__setattr__(made, "_run", stay)
    object.__setattr__(made, "_arun", astay)
    return made
