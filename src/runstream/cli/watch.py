"""`runstream watch`: follows an execution live."""

from typing import Annotated

import typer

from runstream.cli.arguments import ExecutionArgument, RetryForOption
from runstream.cli.calling import calling
from runstream.cli.client import Client
from runstream.cli.exit_codes import ExitCode
from runstream.cli.fold import Fold
from runstream.cli.follow import Follower
from runstream.cli.observe import observe
from runstream.cli.views import ChangesView, view_for


@calling
async def watch(
    client: Client,
    execution: ExecutionArgument,
    *,
    changes: Annotated[
        bool,
        typer.Option(
            "--changes",
            help="Print every change since the beginning, a line for each; with -o json a JSON object on each.",
        ),
    ] = False,
    from_revision: Annotated[
        int | None,
        typer.Option(
            "--from-revision", min=0, metavar="N", help="Print the changes after revision N; implies --changes."
        ),
    ] = None,
    retry_for: RetryForOption = 60.0,
) -> ExitCode:
    """Follow an execution until it ends; the exit code says how.

    On a terminal it is redrawn in place, elsewhere a line is printed for every step. With -o json or yaml, the final
    state is printed at the end. A lost connection is resumed where it was lost.

    Ctrl-C detaches; the execution goes on.
    """
    if changes or from_revision is not None:
        after = from_revision or 0
        follower = Follower(client, execution, after, from_snapshot=False, retry_for=retry_for)
        return await observe(follower, ChangesView(client.output))
    return await follow_live(client, execution, retry_for, connected=False)


async def follow_live(client: Client, execution_id: str, retry_for: float, *, connected: bool) -> ExitCode:
    """Show an execution from its state now to its end."""
    fold = Fold()
    follower = Follower(client, execution_id, 0, from_snapshot=True, retry_for=retry_for, connected=connected)
    return await observe(follower, view_for(client.output, fold), fold)
