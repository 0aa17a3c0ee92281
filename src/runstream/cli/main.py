"""The command `runstream`: how it begins, and how it ends."""

import os
import sys

import typer

from runstream.cli.exit_codes import ExitCode
from runstream.cli.plain_text import clean


def main() -> None:
    """Run the command line; never returns."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not all(_is_text(argument) for argument in sys.argv):
        typer.echo("error: an argument is not UTF-8 text", err=True)
        sys.exit(ExitCode.USAGE)
    try:
        _command_line()(prog_name="runstream")
    except Exception as error:
        if os.environ.get("RUNSTREAM_TRACEBACK"):
            raise
        _report(error)
        sys.exit(ExitCode.CALL_FAILED)


def _command_line() -> typer.Typer:
    """Load what this line needs: all commands take as long to load as the server itself."""
    if sys.argv[1:2] == ["serve"]:
        from runstream.cli.server_app import app as serving  # noqa: PLC0415

        return serving
    from runstream.cli.app import app  # noqa: PLC0415

    return app


def _is_text(argument: str) -> bool:
    """Tell whether an argument came as UTF-8; Python marks the bytes of one that did not."""
    return not any("\ud800" <= char <= "\udfff" for char in argument)


def _report(error: Exception) -> None:
    """Tell of an error that no command expects: of the system, or in the command line itself."""
    if isinstance(error, OSError):
        typer.echo(f"error: {clean(str(error))}", err=True)
        return
    typer.echo(f"error: unexpected {type(error).__name__}: {clean(str(error))}", err=True)
    typer.echo("  hint: this is a bug; RUNSTREAM_TRACEBACK=1 shows where", err=True)


if __name__ == "__main__":
    main()
