"""`runstream import`: takes in what `runstream export` has written."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Final

import typer

from runstream.cli.arguments import RetryForOption
from runstream.cli.calling import calling
from runstream.cli.client import Client
from runstream.cli.failure import Failure, Misuse
from runstream.cli.intake import Intake
from runstream.cli.phases import phase_name
from runstream.cli.progress_bar import progress_bar
from runstream.cli.transfer import Survey, survey
from runstream.model.phases import TERMINAL
from runstream.v1.transfer_pb2 import LIVE_IMPORT_QUEUE, LIVE_IMPORT_TERMINATE, LIVE_IMPORT_UNSPECIFIED, LiveImport

_ENDED: Final = frozenset(phase_name(phase) for phase in TERMINAL)


class Live(StrEnum):
    """What becomes of executions that had not ended."""

    TERMINATE = "terminate"
    QUEUE = "queue"

    @property
    def wanted(self) -> LiveImport.ValueType:
        """How the API says it."""
        return LIVE_IMPORT_TERMINATE if self is Live.TERMINATE else LIVE_IMPORT_QUEUE


@calling
async def import_(
    client: Client,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `export` has written; `-` is the standard input.")],
    *,
    live: Annotated[
        Live | None,
        typer.Option(
            help="What becomes of executions that had not ended: TERMINATED, reason IMPORTED; or queued again, as if"
            " their runner was lost. Without it a file with such executions is refused."
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Where an agent, instance or session is there and differs, use the one that is there."
        ),
    ] = False,
    retry_for: RetryForOption = 60.0,
) -> None:
    """Take in executions that were exported, with their ids, logs, and what they refer to.

    The whole file is checked first. Then each execution comes in whole or not at all; what is there already as it is in
    the file is left alone, so an import that was cut off can be repeated. Values of secrets are not in a file.
    """
    place = "standard input" if file == "-" else file
    with _source(file) as source:
        found = survey(source, place, _ENDED)
        if found.live and live is None:
            raise _undecided(found, place)
        source.seek(0)
        intake = Intake(client, source, place, live.wanted if live else LIVE_IMPORT_UNSPECIFIED, retry_for, keep=keep)
        total = found.counts.get("execution", 0)
        with progress_bar(client.output) as progress:
            async for done in intake.take_all():
                progress("executions", done, total)
    counts = intake.counts
    told = f"imported {counts['imported']} executions; {counts['unchanged']} were there already"
    if counts["kept"]:
        told += f"; kept {counts['kept']} agents, instances or sessions that differ"
    client.output.value(dict(counts), told)


def _undecided(found: Survey, place: str) -> Failure:
    return Failure(
        f"{place}: {found.live} of its {found.counts['execution']} executions had not ended when they were exported",
        reason="EXECUTION_NOT_ENDED",
        hint="--live terminate ends them here, --live queue has them worked on here; else export those that ended",
    )


@contextmanager
def _source(file: str) -> Iterator[IO[bytes]]:
    """Open what is read; the standard input is laid aside first, since a file is read twice."""
    if file == "-":
        with tempfile.TemporaryFile() as aside:
            shutil.copyfileobj(sys.stdin.buffer, aside)
            aside.seek(0)
            yield aside
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115  # what goes wrong later is no misuse
    except OSError as error:
        raise Misuse(f"{file}: {error.strerror or error}") from None
    with source:
        yield source
