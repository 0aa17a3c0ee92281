"""An agent that surveys a folder: lists it, counts it, has a sub-agent read its telling files, and says what it found.

    python -m examples.survey_agent HOST:PORT EXECUTION_ID

It is a process of its own and knows Runstream through the generated stubs of `runstream.v1` alone. How it reports
stands in `reporter.py`, what its tools do in `survey_tools.py`. There is no language model in it: the files are real,
the numbers are counted, every sentence is made by a rule. An agent with a model in it reports in just the same way.

The folder stands in the execution, in `spec.context.attributes` under `folder`: a path, or a `file://` URL.
The process ends with 0 when the execution is COMPLETED, else with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

import grpc

from examples.reporter import CancelAskedError, Reporter, now, told
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
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_IN_PROGRESS,
    TODO_CANCELLED,
    TODO_COMPLETED,
    TODO_IN_PROGRESS,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionPhase,
    SubAgentExecution,
)
from runstream.v1.agent_execution_service_pb2 import GetAgentExecutionRequest
from runstream.v1.agent_execution_service_pb2_grpc import AgentExecutionQueryControllerStub

if TYPE_CHECKING:
    from collections.abc import Coroutine

A = TypeVar("A")
B = TypeVar("B")

PLAN = {
    "list": "List the files",
    "count": "Count the lines of each language",
    "read": "Have a reader look at the files that tell most",
    "search": "Search for open markers and for what is imported",
    "report": "Say what was found",
}

SECONDS_TO_CONNECT = 20

CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a server on this machine is not reached through a proxy
    ("grpc.max_reconnect_backoff_ms", 1000),  # a server that was restarted is found again soon
)


class NoFolderError(Exception):
    """There is no folder to survey; the text says why."""


class SurveyAgent:
    """Surveys one folder."""

    def __init__(self, reporter: Reporter, folder: Path) -> None:
        self._reporter = reporter
        self._folder = folder
        self._name = shown(folder.name or str(folder))

    async def survey(self) -> None:
        """Survey the folder; the caller reports the end. Raises `NoFolderError` when it cannot be listed."""
        reporter = self._reporter
        await reporter.plan(PLAN)
        await reporter.say(f"I am going to survey the folder {self._name}. First I list what is in it.")
        await reporter.mark("list", status=TODO_IN_PROGRESS)
        listing = await self._list()
        await reporter.mark("list", status=TODO_COMPLETED)
        if not listing.files:
            await reporter.say("There is no text file in it, so there is nothing to survey.")
            await reporter.mark("count", "read", "search", "report", status=TODO_CANCELLED)
            return
        counts = await self._count(listing)
        _, (markers, imports) = await together(self._have_read(listing), self._search(listing))
        await reporter.mark("report", status=TODO_IN_PROGRESS)
        await reporter.say(conclusion(self._name, listing, counts, markers, imports))
        await reporter.mark("report", status=TODO_COMPLETED)

    async def _list(self) -> Listing:
        shown_folder = shown(str(self._folder))
        try:
            listing = await self._reporter.use("list_files", {"folder": shown_folder}, lambda: list_files(self._folder))
        except OSError as error:
            raise NoFolderError(f"{shown_folder} cannot be listed: {told(error)}") from error
        await self._reporter.say(f"I found {listing.totals()}.")
        return listing

    async def _count(self, listing: Listing) -> LineCounts:
        reporter = self._reporter
        await reporter.mark("count", status=TODO_IN_PROGRESS)
        args = {"files": f"all {len(listing.files):,}"}
        counts = await reporter.use("count_lines", args, lambda: count_lines(self._folder, listing.files))
        await reporter.mark("count", status=TODO_COMPLETED)
        await reporter.say(f"That is {count(counts.lines, 'line')}: {shares(counts)}.")
        return counts

    async def _search(self, listing: Listing) -> tuple[Markers, Imports]:
        """Search all files, while the reader reads a few."""
        reporter, folder, files = self._reporter, self._folder, listing.files
        await reporter.mark("search", status=TODO_IN_PROGRESS)
        await reporter.say("While the reader reads, I search.")
        markers = await reporter.use(
            "find_markers", {"words": "TODO FIXME XXX HACK"}, lambda: find_markers(folder, files)
        )
        imports = Imports()
        if any(file.language == "Python" for file in files):
            imports = await reporter.use("count_imports", {"language": "Python"}, lambda: count_imports(folder, files))
        await reporter.mark("search", status=TODO_COMPLETED)
        return markers, imports

    async def _have_read(self, listing: Listing) -> None:
        """Have a sub-agent read the telling files: it is an entry of its own, and owns what it says and does."""
        reporter, files = self._reporter, telling_files(listing.files)
        await reporter.mark("read", status=TODO_IN_PROGRESS)
        reader = SubAgentExecution(
            id=reporter.new_id("reader"),
            name="reader",
            input="Say in a line each what is in " + ", ".join(file.name for file in files),
            status=SUB_AGENT_IN_PROGRESS,
            started_at=now(),
        )
        await reporter.report(AgentExecutionStatus(sub_agent_executions=[reader]))
        lines = [await self._summary(file, owner=reader.id) for file in files]
        answered = SubAgentExecution(
            id=reader.id, status=SUB_AGENT_COMPLETED, output="\n".join(lines), completed_at=now()
        )
        await reporter.report(AgentExecutionStatus(sub_agent_executions=[answered]))
        await reporter.mark("read", status=TODO_COMPLETED)

    async def _summary(self, file: FoundFile, owner: str) -> str:
        """Return what is in a file in a line; as the sub-agent, which also says it."""
        try:
            outline = await self._reporter.use(
                "read_file", {"path": file.name}, lambda: read_file(self._folder, file), owner
            )
        except OSError as error:
            return f"{file.name}: cannot be read: {told(error)}"
        await self._reporter.say(outline.summary(), owner)
        return outline.summary()


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


def folder_of(execution: AgentExecution) -> Path:
    """Return the folder that the execution is about. Raises `NoFolderError`."""
    place = execution.spec.context.attributes.fields["folder"].string_value
    if not place:
        raise NoFolderError("spec.context.attributes.folder is missing: the folder to survey")
    if place.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(place).path)))
    return Path(place)


async def together(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Do two things at the same time. When one fails, the other is given up and the error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()


async def work(reporter: Reporter, execution: AgentExecution) -> bool:
    """Work on an execution and report its end, whatever it is; True when it is COMPLETED. Raises `grpc.RpcError`."""
    try:
        await reporter.report(AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS))
        await SurveyAgent(reporter, folder_of(execution)).survey()
        await reporter.end(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
    except grpc.RpcError:
        raise  # what cannot be reported
    except CancelAskedError:
        await reporter.end(AgentExecutionStatus(phase=EXECUTION_CANCELLED))
    except NoFolderError as error:
        await reporter.end(failed("NO_FOLDER", str(error)))
    except asyncio.CancelledError:
        await reporter.end(failed("AGENT_STOPPED", "the agent's process was told to stop"))
    except Exception as error:  # noqa: BLE001  # a crash is reported too
        traceback.print_exc()
        await reporter.end(failed("AGENT_CRASHED", told(error)))
    else:
        return True
    return False


def failed(reason: str, error: str) -> AgentExecutionStatus:
    """Return the delta that ends a failed execution: a stable code for programs, and words for people."""
    return AgentExecutionStatus(phase=EXECUTION_FAILED, reason=reason, error=error)


async def run(address: str, execution_id: str, pace: float) -> int:
    """Take up an execution and work on it; return the exit code of the process."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            execution = await AgentExecutionQueryControllerStub(channel).Get(
                GetAgentExecutionRequest(value=execution_id), timeout=SECONDS_TO_CONNECT, wait_for_ready=True
            )
            if execution.status.phase != EXECUTION_PENDING:
                phase = ExecutionPhase.Name(execution.status.phase)
                print(f"execution {execution_id} is {phase}; only a pending one can be begun", file=sys.stderr)
                return 1
            return 0 if await work(Reporter(channel, execution_id, pace=pace), execution) else 1
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1


def main() -> int:
    """Run the agent as its command line says."""
    parser = argparse.ArgumentParser(description="Work on one execution: survey the folder that it names.")
    parser.add_argument("address", metavar="HOST:PORT", help="the server")
    parser.add_argument("execution", metavar="EXECUTION_ID", help="the execution, which must be pending")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="stretches the pauses that let a person follow; 0: none"
    )
    given = parser.parse_args()
    try:
        return asyncio.run(run(given.address, given.execution, given.pace))
    except asyncio.CancelledError:  # told to stop before it had begun
        return 1


if __name__ == "__main__":
    sys.exit(main())
