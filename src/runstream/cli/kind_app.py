"""Kind app: the commands that every kind of resource has, under the kind's name.

Each kind adds its own `create` and `list`, which end here as well.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Generic

import typer
from rich.table import Table

from runstream.cli import asking, documents, pairs, resources
from runstream.cli.arguments import CascadeOption, FilesOption, OrgOption, YesOption
from runstream.cli.calling import calling
from runstream.cli.client import Client, collect
from runstream.cli.failure import Misuse
from runstream.cli.help_texts import add_command
from runstream.cli.kinds import Kind, R
from runstream.cli.tables import Column
from runstream.v1.resource_pb2 import ResourceMetadata

Fetch = Callable[[int, str], Awaitable[tuple[list[R], str]]]


class KindApp(Generic[R]):
    """The commands of one kind, in the order in which they are added."""

    def __init__(
        self,
        kind: Kind[R],
        details: Callable[[R], Table],
        columns: Callable[[datetime], Sequence[Column[R]]],
    ) -> None:
        """Show one resource by its `details`, and many in `columns`."""
        self.app = typer.Typer(no_args_is_help=True)
        self._kind: Kind[R] = kind
        self._details: Callable[[R], Table] = details
        self._columns: Callable[[datetime], Sequence[Column[R]]] = columns
        named_by = ("slug or id", "slugs or ids") if kind.references else ("id", "ids")
        self._metavar = kind.title.upper() if kind.references else "ID"
        self._one = f"The {kind.title}'s {named_by[0]}."
        self._many = f"The {kind.title}s' {named_by[1]}."

    def command(self, body: Callable[..., Any], *examples: str, name: str | None = None, text: str = "") -> None:
        """Add a command of the kind; `examples` are what stands after the kind's name, the rest as `add_command`."""
        lines = (f"runstream {self._kind.title} {example}" for example in examples)
        add_command(self.app, calling(body), *lines, name=name, text=text)

    def add_apply(self, text: str, *examples: str) -> None:
        """Add `apply`, which `text` explains."""

        async def apply(client: Client, *, file: FilesOption) -> None:
            applications = [resources.application(self._kind, each) for each in documents.read(file)]
            await client.output.report((await apply(client) for apply in applications), many=len(applications) > 1)

        self.command(apply, *examples, text=text)

    def add_get(self, text: str, *examples: str) -> None:
        """Add `get`, which `text` explains."""

        async def get(
            client: Client,
            name: Annotated[str, typer.Argument(metavar=self._metavar, help=self._one)],
            *,
            org: OrgOption = "",
        ) -> None:
            found = await resources.find(client, self._kind, name, org)
            client.output.record(found, self._details(found))

        self.command(self._fitting(get), *examples, text=text)

    def add_delete(self, text: str, consequence: str, *examples: str) -> None:
        """Add `delete`, which `text` explains; `consequence` is what --cascade deletes too."""

        async def delete(
            client: Client,
            names: Annotated[list[str], typer.Argument(metavar=f"{self._metavar}…", help=self._many)],
            *,
            org: OrgOption = "",
            cascade: CascadeOption = False,
            yes: YesOption = False,
        ) -> None:
            await asking.confirm_deletion(names, f" with all {consequence}" if cascade else "", yes=yes)
            done = (await resources.delete(client, self._kind, each, org, cascade=cascade) for each in names)
            await client.output.report(done, many=len(names) > 1)

        self.command(self._fitting(delete), *examples, text=text)

    async def create(
        self,
        client: Client,
        files: Sequence[Path] | None,
        one: Callable[[], Awaitable[R]],
        idempotency_key: str,
    ) -> None:
        """Create the resources of `files`; without any, the `one` of the options."""
        found = [resources.parse(self._kind, each) for each in documents.read(files)] if files else [await one()]
        many = len(found) > 1
        if idempotency_key and many:
            raise Misuse(f"--idempotency-key is for one {self._kind.title}")
        done = (await resources.create(client, self._kind, each, idempotency_key) for each in found)
        await client.output.report(done, many=many)

    async def show_page(self, client: Client, fetch: Fetch[R], limit: int | None, page_token: str) -> None:
        """Write up to `limit` resources, all without one; `fetch` as in `client.collect`."""
        found, rest = await collect(fetch, limit, page_token)
        client.output.page(found, self._columns(datetime.now(UTC)), rest)

    def _fitting(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """Take --org off a command when the kind's resources are named by ids alone."""
        if self._kind.references is None:
            signature = inspect.signature(body)
            kept = [each for each in signature.parameters.values() if each.name != "org"]
            body.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return body


def new_metadata(name: str, org: str, labels: Sequence[str] | None, tags: Sequence[str] | None) -> ResourceMetadata:
    """Return the metadata of a new resource as options say it. Raises `Misuse`."""
    return ResourceMetadata(name=name, org=org, labels=pairs.parse(labels or (), "--label"), tags=tags or ())
