"""Examples: the end of every help text."""

from __future__ import annotations

from rich.markup import escape


def examples(*commands: str) -> str:
    """Return the epilog that shows `commands`, a line for each."""
    lines = (f"[dim]$[/dim] [cyan]{escape(command)}[/cyan]" for command in commands)
    return "\n".join(("[bold]Examples[/bold]", *lines))
