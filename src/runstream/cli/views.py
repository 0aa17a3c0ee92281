"""Views: how an execution is shown while it is followed.

View
├── LiveView        redraws the terminal; what is complete moves up into the scrollback
├── LineView        a line for every step, for pipes and logs
├── ChangesView     a line for every change, or its JSON
└── SilentView      nothing until the end, then the state as JSON or YAML
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from rich.live import Live
from rich.text import Text

from runstream.cli import waiting, wording
from runstream.cli.change_lines import change_line
from runstream.cli.panel import Panel
from runstream.cli.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.cli.fold import Fold
    from runstream.cli.output import Output
    from runstream.v1.agent_execution_pb2 import ExecutionChange

_REDRAWS_PER_SECOND: Final = 8
#: How wide a line is where the width of a terminal says nothing.
_PIPE_WIDTH: Final = 200


class View(Protocol):
    """Shows an execution while it is followed."""

    def shown(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Show it as long as the context is open."""

    def take(self, change: ExecutionChange) -> None:
        """Show what a change did; the fold has taken it already."""

    def lost(self, after: int) -> None:
        """Tell that the connection is lost."""

    def resumed(self, after: int) -> None:
        """Tell that the connection is back."""

    def end(self) -> None:
        """Show how the execution ended; the context is closed."""


class PlainView:
    """What all views have in common: nothing needs to be shown, and outages are told on the standard error."""

    def __init__(self, output: Output) -> None:
        """Write to `output`."""
        self._output = output

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Need nothing to be shown."""
        yield

    def lost(self, after: int) -> None:
        """Write that the connection is lost."""
        self._output.note(_lost(after))

    def resumed(self, after: int) -> None:
        """Write that the connection is back."""
        self._output.note(_resumed(after))


class LineView(PlainView):
    """A line for every step, for pipes and logs."""

    def __init__(self, output: Output, fold: Fold) -> None:
        """Write to `output` what `fold` comes to."""
        super().__init__(output)
        self._fold = fold
        self._transcript = Transcript(fold, _now, width=_PIPE_WIDTH, every_step=True)

    def take(self, change: ExecutionChange) -> None:
        """Write the lines of a change."""
        for line in self._transcript.after(change):
            self._output.say(line)

    def end(self) -> None:
        """Write the ending."""
        for line in wording.ending(self._fold.state, _now()):
            self._output.say(line)


class LiveView(LineView):
    """Redraws the terminal; what is complete moves up into the scrollback."""

    def __init__(self, output: Output, fold: Fold) -> None:
        """Draw on the terminal of `output` what `fold` comes to."""
        super().__init__(output, fold)
        console = output.console
        self._transcript = Transcript(fold, _now, width=console.width, every_step=False)
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._notice = ""
        self._frame = 0

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Redraw until the context closes, then leave the transcript alone on the terminal."""
        self._live.start()
        redrawing = asyncio.create_task(self._redraw())
        try:
            yield
        finally:
            redrawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await redrawing
            self._live.update(Text(), refresh=False)
            self._live.stop()

    def lost(self, after: int) -> None:
        """Put the loss into the scrollback and onto the panel, where it stays until resumed."""
        self._notice = _lost(after)
        self._output.say(Text(self._notice, style="yellow"))

    def resumed(self, after: int) -> None:
        """Put the return into the scrollback and take the loss off the panel."""
        self._notice = ""
        self._output.say(Text(_resumed(after), style="green"))

    def end(self) -> None:
        """Leave the checklist and the ending on the terminal."""
        for item in wording.todos_in_order(self._fold.status):
            self._output.say(wording.todo(item, self._output.console.width))
        super().end()

    async def _redraw(self) -> None:
        while True:
            self._live.update(self._panel(), refresh=True)
            self._frame += 1
            await asyncio.sleep(1 / _REDRAWS_PER_SECOND)

    def _panel(self) -> Text:
        state = self._fold.state
        if not state.metadata.id:
            return Text("connecting…", style="dim")
        size = self._output.console.size
        panel = Panel(size.width, max(size.height - 1, 1), _now(), self._frame)
        return panel.show(state, list(self._transcript.untold()), self._notice)


class SilentView(PlainView):
    """Nothing until the end, then the state as JSON or YAML. What it waits for is told on the standard error."""

    def __init__(self, output: Output, fold: Fold) -> None:
        """Write to `output` what `fold` came to."""
        super().__init__(output)
        self._fold = fold
        self._waits_for: list[str] = []

    def take(self, change: ExecutionChange) -> None:
        """Write what it has come to wait for."""
        delta = change.status
        if change.HasField("status") and not (delta.phase or delta.tool_calls):
            return  # streamed text, for which it must not look through all tool calls
        before, self._waits_for = self._waits_for, waiting.commands(self._fold.peek)
        for command in self._waits_for:
            if command not in before:
                self._output.note(f"waiting; {command}")

    def end(self) -> None:
        """Write the state."""
        self._output.record(self._fold.state, Text())


class ChangesView(PlainView):
    """A line for every change, or its JSON."""

    def take(self, change: ExecutionChange) -> None:
        """Write the change."""
        if self._output.for_people:
            self._output.say(change_line(change))
        else:
            self._output.element(change)

    def end(self) -> None:
        """Write nothing more: the last change was the end."""


def view_for(output: Output, fold: Fold) -> View:
    """Return the view that suits whoever reads the output."""
    if not output.for_people:
        return SilentView(output, fold)
    return LiveView(output, fold) if output.live else LineView(output, fold)


def _lost(after: int) -> str:
    return f"connection lost, resuming after revision {after}…"


def _resumed(after: int) -> str:
    return f"resumed after revision {after}"


def _now() -> datetime:
    return datetime.now(UTC)
