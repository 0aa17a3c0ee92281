"""The output: answers as tables for people, as JSON or YAML for scripts.

JSON and YAML are proto3 JSON with the field names of the protos. What a terminal would obey never reaches it: JSON
and YAML escape it, tables and messages lose it.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runstream.cli import yaml_text
from runstream.cli.connection import OutputFormat
from runstream.cli.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rich.console import RenderableType

    from runstream.cli.failure import Failure
    from runstream.cli.tables import Column

M = TypeVar("M", bound=Message)

#: Wide enough that nothing is cut or wrapped where no person looks.
_PIPE_WIDTH: Final = 100_000
#: What JSON leaves as it is, and a terminal may obey or be confused by.
_UNSHOWN: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Output:
    """Where a command writes, and in which form."""

    def __init__(self, form: OutputFormat) -> None:
        """Write in `form`, to the standard output; messages and errors go to the standard error."""
        self.form = form
        self.console = _console(stderr=False)
        self.errors = _console(stderr=True)

    @property
    def for_people(self) -> bool:
        """Whether a person reads it: neither JSON nor YAML."""
        return self.form is OutputFormat.TABLE

    @property
    def live(self) -> bool:
        """Whether a person looks at a terminal that can be redrawn."""
        return self.for_people and self.console.is_terminal and not self.console.is_dumb_terminal

    def say(self, text: str | Text) -> None:
        """Write a line for a person; scripts do not get it."""
        if self.for_people:
            self.console.print(text if isinstance(text, Text) else clean(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Write a line about what is going on to the standard error."""
        self.errors.print(Text(clean(text), style="dim"), soft_wrap=True)

    def fail(self, failure: Failure) -> None:
        """Write what went wrong to the standard error."""
        if self.form is OutputFormat.JSON:
            self.errors.file.write(failure.as_json() + "\n")
            return
        first, _, rest = failure.as_text().partition("\n")
        self.errors.print(Text(first, style="red"), soft_wrap=True)
        if rest:
            self.errors.print(Text(rest), soft_wrap=True)

    def record(self, message: Message, person: RenderableType) -> None:
        """Write one message; a person gets `person` instead."""
        if self.for_people:
            self.console.print(person, soft_wrap=isinstance(person, Text))
        else:
            self._structure(_plain(message))

    def value(self, plain: object, person: RenderableType) -> None:
        """Write what JSON can hold; a person gets `person` instead."""
        if self.for_people:
            self.console.print(person, soft_wrap=isinstance(person, Text))
        else:
            self._structure(plain)

    def done(self, message: Message, person: str) -> None:
        """Write what was done to one message; a person gets a line that says so."""
        self.record(message, Text(clean(person)))

    async def report(self, done: AsyncIterator[tuple[Message, str]], *, many: bool) -> None:
        """Write what is done to messages, also when something fails after some of them.

        A person gets the line of each as it is done. A script gets them at the end: an object with `entries`, or the
        message itself when there were not `many` to do.
        """
        messages: list[Message] = []
        try:
            async for message, person in done:
                messages.append(message)
                self.say(person)
        finally:
            if messages and not self.for_people:
                plain = [_plain(message) for message in messages]
                self._structure({"entries": plain} if many else plain[0])

    def page(self, entries: Sequence[M], columns: Sequence[Column[M]], next_page_token: str) -> None:
        """Write a list: a table, or an object with `entries` and `next_page_token`."""
        if not self.for_people:
            plain = [_plain(entry) for entry in entries]
            self._structure({"entries": plain, "next_page_token": next_page_token})
            return
        if not entries:
            self.note("nothing found")
            return
        self.table(entries, columns)
        if next_page_token:
            self.note(f"there is more: use --all, or --page-token {next_page_token}")

    def table(self, entries: Sequence[M], columns: Sequence[Column[M]]) -> None:
        """Write a table, one line for each entry."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.title, no_wrap=True, overflow="ellipsis")
        for entry in entries:
            table.add_row(*(column.cell(entry) for column in columns))
        self.console.print(table)

    def element(self, message: Message) -> None:
        """Write one message of a stream for a script: a line of JSON, or a YAML document."""
        self.part(_plain(message))

    def part(self, plain: dict[str, object]) -> None:
        """Write one part of a long answer for a script, which JSON can hold: a line of JSON, or a YAML document."""
        if self.form is OutputFormat.JSON:
            self._write(_json(plain, indent=None))
        else:
            self._write(_shown(yaml_text.dump_all([plain])).rstrip("\n"))

    def _structure(self, value: object) -> None:
        if self.form is OutputFormat.JSON:
            self._write(_json(value, indent=2))
        else:
            self._write(_shown(yaml_text.dump(value)).rstrip("\n"))

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _plain(message: Message) -> dict[str, object]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _json(value: object, *, indent: int | None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _shown(text: str) -> str:
    """Return YAML as it may be shown; only marks of direction can be left in it by its escapes."""
    return _UNSHOWN.sub("", text) if sys.stdout.isatty() else text


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if stream.isatty() else _PIPE_WIDTH,
    )
