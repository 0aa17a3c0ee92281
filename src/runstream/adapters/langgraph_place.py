"""The place of a tool in a LangGraph run: what it reports by itself stands under its call.

LangChain calls these handlers in the task in which the tool is to run, before it does and after.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from runstream.runner.context.ambient import _CURRENT  # what begins and ends in two calls is no block

if TYPE_CHECKING:
    from uuid import UUID

    from runstream.adapters.langgraph_stream import Stream
    from runstream.runner.context import ExecutionContext

#: How many turns of the loop a tool waits until its call was told: the stream of a sub-agent is heard a little later.
_TURNS: Final = 100


class Patience(AsyncCallbackHandler):  # type: ignore[misc]  # of a package without types here
    """Has a tool wait until its call was told. It stands before the `Place`."""

    run_inline = True

    def __init__(self, stream: Stream) -> None:
        """Wait for what this stream tells."""
        super().__init__()
        self._stream = stream

    async def on_tool_start(self, serialized: object, input_str: str, **details: Any) -> None:  # noqa: ANN401
        """Wait, though not for ever: a call may never be told."""
        _ = serialized, input_str
        for _turn in range(_TURNS if details.get("tool_call_id") else 0):
            if _context(self._stream, details) is not None:
                return
            await asyncio.sleep(0)


class Place(BaseCallbackHandler):  # type: ignore[misc]  # as above
    """Has each tool work in the context of its call; in that of the agent, if the call was not told."""

    run_inline = True

    def __init__(self, stream: Stream) -> None:
        """Know the calls by this stream."""
        super().__init__()
        self._stream = stream
        self._before: dict[UUID, ExecutionContext | None] = {}

    def on_tool_start(self, serialized: object, input_str: str, *, run_id: UUID, **details: Any) -> None:  # noqa: ANN401
        """Enter the context."""
        _ = serialized, input_str
        context = _context(self._stream, details)
        if context is not None:
            self._before[run_id] = _CURRENT.get()
            _CURRENT.set(context)

    def on_tool_end(self, output: object, *, run_id: UUID, **details: object) -> None:
        """Leave it."""
        _ = output, details
        self._leave(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **details: object) -> None:
        """Leave it."""
        _ = error, details
        self._leave(run_id)

    def _leave(self, run_id: UUID) -> None:
        if run_id in self._before:
            _CURRENT.set(self._before.pop(run_id))


def _context(stream: Stream, details: dict[str, Any]) -> ExecutionContext | None:
    call = details.get("tool_call_id")
    path = str((details.get("metadata") or {}).get("langgraph_checkpoint_ns", "")).split("|")
    return stream.context(path, str(call)) if call else None
