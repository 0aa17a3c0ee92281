"""Arguments: those that several commands take, with the words that explain them."""

from pathlib import Path
from typing import Annotated

import typer

from runstream.cli.phases import PhaseName

FilesOption = Annotated[
    list[Path],
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A YAML or JSON file with one or more documents, `-` for the standard input; can be given several times.",
    ),
]
OptionalFilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Take it from a YAML or JSON file with one or more documents instead, `-` for the"
        " standard input; can be given several times.",
    ),
]
OrgOption = Annotated[str, typer.Option("--org", metavar="ORG", help="The organization; the default one if empty.")]
OrgFilter = Annotated[str, typer.Option("--org", metavar="ORG", help="Only those of this organization.")]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="A label; can be repeated."),
]
LabelFilter = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only those with this label; can be repeated."),
]
TagsOption = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag; can be repeated.")]
TagFilter = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="Only those with this tag; can be repeated."),
]
PhaseFilter = Annotated[
    list[PhaseName] | None,
    typer.Option(
        "--phase",
        "-p",
        metavar="PHASE",
        case_sensitive=False,
        help=f"Only those in this phase: {', '.join(PhaseName)}. Can be repeated.",
    ),
]
AgentFilter = Annotated[
    str, typer.Option("--agent", metavar="AGENT", help="Only those of this agent, a slug (in --org) or an id.")
]
SessionFilter = Annotated[str, typer.Option("--session", metavar="ID", help="Only those of this session.")]
CreatedAfterFilter = Annotated[
    str,
    typer.Option(
        "--created-after", metavar="TIME", help="Only those created since: RFC 3339, or how long ago, as in 2h or 7d."
    ),
]
CreatedBeforeFilter = Annotated[
    str, typer.Option("--created-before", metavar="TIME", help="Only those created before: as with --created-after.")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many at most.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, however many.")]
PageTokenOption = Annotated[
    str,
    typer.Option("--page-token", metavar="TOKEN", help="Go on where a list with this token ended."),
]
CascadeOption = Annotated[bool, typer.Option("--cascade", help="Delete what uses it as well.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
IdempotencyKeyOption = Annotated[
    str,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="A repeat with the same key within 24 hours answers as the first call did.",
    ),
]
RetryForOption = Annotated[
    float,
    typer.Option(
        "--retry-for",
        min=0,
        metavar="SECONDS",
        help="How long to try again after the connection was lost.",
    ),
]
ExecutionArgument = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why, at most 1000 characters.")]
