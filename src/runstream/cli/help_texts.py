"""Help texts: what a command explains, and the examples at the end."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

#: A line end inside a paragraph: it stands where the source is broken, not where a terminal ends.
_BREAK = re.compile(r"(?<!\n)\n(?!\n)")


def add_command(
    app: typer.Typer,
    command: Callable[..., Any],
    *examples: str,
    name: str | None = None,
    text: str = "",
    panel: str | None = None,
) -> None:
    """Add a command, explained by `text` or its docstring and by `examples`, each a line that can be typed.

    Its name is that of the function unless it is given.
    """
    explained = text or _BREAK.sub(" ", inspect.getdoc(command) or "")
    app.command(name, help=explained, epilog=_epilog(examples), rich_help_panel=panel)(command)


def _epilog(examples: tuple[str, ...]) -> str:
    lines = (f"[dim]$[/dim] [cyan]{escape(example)}[/cyan]" for example in examples)
    return "\n".join(("[bold]Examples[/bold]", *lines))
