"""At work: a tool of a framework while it works: in a context and a span of its own, and unable to end the runner."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from runstream.runner.context.ambient import entered
from runstream.runner.exits import exits_contained
from runstream.runner.tracing import spanned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.adapters.narration import Narration


@contextmanager
def at_work(narration: Narration, call: str, name: str, *, owner: str) -> Iterator[None]:
    """Do what is done in the block as a tool: for tool call `call` of `owner`."""
    context = narration.context_of(call, owner)
    attributes = {"gen_ai.tool.name": name, "gen_ai.tool.call.id": narration.id_of(call, owner)}
    with spanned("execute_tool", name, context, **attributes) as within, entered(within), exits_contained("the tool"):
        yield
