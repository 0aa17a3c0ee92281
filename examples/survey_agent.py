"""Two agents that look at a folder. They are what `make demo` shows at work, and an example of what the SDK can do.

    runstream runner --import examples.survey_agent:agents       # from the repository's folder
    runstream run survey "What is in here?" --env FOLDER=$PWD

`survey` is a coroutine: it plans, uses tools, has a sub-agent read while it searches, and says what it found. `scribe`
is an async generator, which yields what it says, and asks a person before it writes a file. There is no language model
in them: the files are real, the numbers are counted, every sentence is made by a rule. What the tools do stands in
`survey_tools.py`, how an agent takes its time in `pacing.py`.

Their variables: FOLDER, a path or a `file://` URL; REPORT, the file that `scribe` writes; PACE, 1 unless given.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from examples.pacing import Paced
from examples.survey_folder import FoundFile, Listing, count, list_files, shown
from examples.survey_tools import (
    Imports,
    LineCounts,
    Markers,
    count_imports,
    count_lines,
    find_markers,
    largest_source,
    ranking,
    read_file,
    telling_files,
)
from runstream.runner import Agent, AgentFailure, Approval

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from runstream.runner import Invocation

_LOG = logging.getLogger(__name__)

PLAN = {
    "list": "List the files",
    "count": "Count the lines of each language",
    "read": "Have a reader look at the files that tell most",
    "search": "Search for open markers and for what is imported",
    "report": "Say what was found",
}

LETTERS_PER_TOKEN = 4


async def survey(invocation: Invocation) -> None:
    """Survey a folder."""
    _LOG.info("%s begins, attempt %d", invocation.execution.metadata.id, invocation.attempt)
    report = invocation.report
    await report.todos(PLAN)
    paced = Paced(report, pace_of(invocation.env))
    folder = folder_of(invocation.env)
    await paced.say("begin", f"Attempt {invocation.attempt}, in process {os.getpid()}: I survey {named(folder)}.")
    await Survey(paced, folder, invocation.execution.metadata.id).run()


async def scribe(invocation: Invocation) -> AsyncIterator[str]:
    """Count the lines of a folder, and write them to a file if a person lets it."""
    paced = Paced(invocation.report, pace_of(invocation.env))
    folder = folder_of(invocation.env)
    yield f"I count what is in {named(folder)}."
    listing = await listed(paced, folder)
    counts = await paced.use("count_lines", {}, lambda: count_lines(folder, listing.files))
    target = report_of(invocation.env)
    yield "I have the numbers, and would like to write them to a file."
    args = {"path": shown(str(target))}
    async with invocation.report.tool("write_file", args, id="write_file", approval=Approval()) as call:
        # Only a person's approval gets here; after a refusal the execution is FAILED, with TOOL_REJECTED.
        written = await asyncio.to_thread(target.write_text, counts.text() + "\n", encoding="utf-8")
        call.result = f"{count(written, 'letter')} written"
    yield f"Written to {shown(target.name)}: {shares(counts)}."


agents = {
    "survey": Agent(
        survey,
        description="Surveys a folder and says what is in it.",
        tools=("list_files", "count_lines", "read_file", "find_markers", "count_imports"),
    ),
    "scribe": Agent(
        scribe,
        description="Counts the lines of a folder, and writes them down when a person approves.",
        tools=("list_files", "count_lines", "write_file"),
    ),
}


class Survey:
    """Surveys one folder."""

    def __init__(self, paced: Paced, folder: Path, execution_id: str) -> None:
        self._paced = paced
        self._report = paced.report
        self._folder = folder
        self._execution_id = execution_id

    async def run(self) -> None:
        """Survey the folder. Raises `AgentFailure` when it cannot be listed."""
        paced, report = self._paced, self._report
        await report.todo("list", "in_progress")
        listing = await listed(paced, self._folder)
        await report.todo("list", "completed")
        await paced.say("listed", f"I found {listing.totals()}.")
        if not listing.files:
            await paced.say("conclusion", "There is no text file in it, so there is nothing to survey.")
            return
        counts = await self._count(listing)
        _LOG.info("%s is half way", self._execution_id)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._have_read(listing))
            searching = group.create_task(self._search(listing))
        markers, imports = searching.result()
        await report.todo("report", "in_progress")
        await paced.say("conclusion", conclusion(named(self._folder), listing, counts, markers, imports))
        await report.todo("report", "completed")
        await self._tell_usage(listing)

    async def _count(self, listing: Listing) -> LineCounts:
        args = {"files": f"all {len(listing.files):,}"}
        await self._report.todo("count", "in_progress")
        counts = await self._paced.use("count_lines", args, lambda: count_lines(self._folder, listing.files))
        await self._report.todo("count", "completed")
        await self._paced.say("counted", f"That is {count(counts.lines, 'line')}: {shares(counts)}.")
        return counts

    async def _search(self, listing: Listing) -> tuple[Markers, Imports]:
        """Search all files, while the reader reads a few."""
        paced, folder, files = self._paced, self._folder, listing.files
        await self._report.todo("search", "in_progress")
        await paced.say("searching", "While the reader reads, I search.")
        words = {"words": "TODO FIXME XXX HACK"}
        markers = await paced.use("find_markers", words, lambda: find_markers(folder, files))
        imports = Imports()
        if any(file.language == "Python" for file in files):
            imports = await paced.use("count_imports", {"language": "Python"}, lambda: count_imports(folder, files))
        await self._report.todo("search", "completed")
        return markers, imports

    async def _have_read(self, listing: Listing) -> None:
        """Have a sub-agent read the telling files: it is an entry of its own, and owns what it says and does."""
        files = telling_files(listing.files)
        await self._report.todo("read", "in_progress")
        task = "Say in a line each what is in " + ", ".join(file.name for file in files)
        async with self._report.sub_agent("reader", task, id="reader") as reader:
            paced = self._paced.as_another(reader.report)
            lines = [await self._summary(number, file, paced) for number, file in enumerate(files, start=1)]
            reader.output = "\n".join(lines)
        await self._report.todo("read", "completed")

    async def _summary(self, number: int, file: FoundFile, reader: Paced) -> str:
        """Return what is in a file in a line, which the reader also says."""
        args, name = {"path": file.name}, f"read_file-{number}"
        try:
            outline = await reader.use("read_file", args, lambda: read_file(self._folder, file), name)
        except OSError as error:
            return f"{file.name}: cannot be read: {error.strerror or error}"
        await reader.say(f"summary-{number}", outline.summary())
        return outline.summary()

    async def _tell_usage(self, listing: Listing) -> None:
        """Tell what a model would have been asked to read and to say; it would also have had a price."""
        read = sum(file.size for file in listing.files) // LETTERS_PER_TOKEN
        await self._report.usage(
            "rules", input_tokens=read, output_tokens=self._paced.letters // LETTERS_PER_TOKEN, id="rules"
        )


async def listed(paced: Paced, folder: Path) -> Listing:
    """List a folder. Raises `AgentFailure` when it cannot be listed, which ends the execution as FAILED."""
    name = shown(str(folder))
    try:
        return await paced.use("list_files", {"folder": name}, lambda: list_files(folder))
    except OSError as error:
        raise AgentFailure("NO_FOLDER", f"{name} cannot be listed: {error.strerror or error}") from error


def conclusion(name: str, listing: Listing, counts: LineCounts, markers: Markers, imports: Imports) -> str:
    """Return what was found, in a few sentences."""
    much = (
        f"{name} holds {count(len(listing.files), 'text file')} with {count(counts.lines, 'line')}, {shares(counts)}."
    )
    said = [much if listing.complete else f"Of {name} I saw a part. {much}"]
    largest = largest_source(listing.files)
    if largest is not None:
        said.append(f"The largest source file is {largest.name}.")
    if imports.own:
        said.append(f"Its Python files lean most on {ranking(imports.own[:3])}.")
    if imports.outside:
        said.append(f"From outside they need {ranking(imports.outside)}.")
    if markers.words:
        said.append(f"Left to do are {markers.totals()}, the first in {markers.places[0]}.")
    else:
        said.append("Nobody left a TODO or a FIXME behind.")
    return " ".join(said)


def shares(counts: LineCounts) -> str:
    """Return the three languages with the most lines, and their shares."""
    largest = counts.languages[:3]
    return ", ".join(f"{row.lines / max(counts.lines, 1):.0%} {row.language}" for row in largest) or "none"


def named(folder: Path) -> str:
    """Return what a folder is called, as it can be shown."""
    return shown(folder.name or str(folder))


def folder_of(env: Mapping[str, str]) -> Path:
    """Return the folder that a run is about. Raises `AgentFailure` when its variables name none."""
    place = env.get("FOLDER", "")
    if not place:
        raise AgentFailure("NO_FOLDER", "The variable FOLDER is missing: the folder to look at.")
    if place.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(place).path)))
    return Path(place)


def report_of(env: Mapping[str, str]) -> Path:
    """Return the file that the scribe writes, with its whole path: a person is to approve it."""
    return Path(env.get("REPORT") or "survey.txt").absolute()


def pace_of(env: Mapping[str, str]) -> float:
    """Return how slow to be: 1 is for people, 0 takes no time. Raises `AgentFailure` for what is no number."""
    try:
        return float(env.get("PACE") or 1)
    except ValueError:
        raise AgentFailure("WRONG_PACE", f"The variable PACE must be a number, not {env['PACE']!r}.") from None
