"""The progress bar: how far a long piece of work has come, for people who look at a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runstream.cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress_bar(output: Output) -> Iterator[Callable[[str, int, int | None], None]]:
    """Draw on the standard error, if that is a terminal, what the yielded function is told: step, done and total."""
    if not output.errors.is_terminal or output.errors.is_dumb_terminal:
        yield lambda _step, _done, _total: None
        return
    # Slow to load, and needed here alone.
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Drawn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # What goes elsewhere than to the terminal must not be drawn on it.
    on_terminal = output.console.is_terminal
    with Drawn(*columns, console=output.errors, transient=True, redirect_stdout=on_terminal) as drawn:
        yield _Steps(drawn).tell


class _Steps:
    """Draws one step at a time, each from its own beginning."""

    def __init__(self, drawn: "Progress") -> None:
        self._drawn = drawn
        self._step = ""
        self._task = drawn.add_task("opening", total=None)

    def tell(self, step: str, done: int, total: int | None) -> None:
        """Draw how far a step has come."""
        if step != self._step:
            self._drawn.remove_task(self._task)
            self._step, self._task = step, self._drawn.add_task(step, total=total)
        self._drawn.update(self._task, completed=done)
