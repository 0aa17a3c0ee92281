"""`runstream tool`: calls a tool out of a person's own module, without an agent, and shows what tools there are."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from runstream.cli import documents, importing, pairs, resources, wording
from runstream.cli.calling import calling, end
from runstream.cli.client import Client
from runstream.cli.connection import Connection, OutputOption
from runstream.cli.failure import Failure, FieldFault, Misuse
from runstream.cli.help_texts import add_command
from runstream.cli.kinds import SESSION
from runstream.cli.output import Output
from runstream.cli.plain_text import clean, one_line
from runstream.v1.agent_execution_pb2 import TOOL_CALL_PENDING, SubAgentExecution, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.runner import AgentFailure, ExecutionContext
    from runstream.runner.executions import Executions
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus

app = typer.Typer(no_args_is_help=True)

ImportOption = Annotated[
    str,
    typer.Option(
        "--import",
        metavar="MODULE:ATTRIBUTE",
        help="Where the tools are: a ToolRegistry, or one function. The module is looked for in the current folder"
        " first.",
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The tool's name.")]

#: The codes of failures, as the server would give them, by reason.
_CODES: Final = {
    "TOOL_UNKNOWN": "NOT_FOUND",
    "TOOL_NOT_ALLOWED": "PERMISSION_DENIED",
    "TOOL_ARGUMENTS_INVALID": "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "BUDGET_EXCEEDED": "RESOURCE_EXHAUSTED",
    "SERVER_UNREACHABLE": "UNAVAILABLE",
    "NOBODY_TO_ASK": "FAILED_PRECONDITION",
}
_WIDTH: Final = 100


@calling
async def call(  # noqa: PLR0913 — one parameter per option
    client: Client,
    name: NameArgument,
    *,
    path: ImportOption,
    data: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="The arguments, a JSON object; `-` takes it from the standard input, @FILE from a file.",
        ),
    ] = "{}",
    made_of: Annotated[
        str,
        typer.Option(
            "--context",
            metavar="JSON",
            help='What the context is made of, a JSON object as in \'{"user": "ada", "max_duration": 5}\', or @FILE.',
        ),
    ] = "{}",
    session: Annotated[
        str, typer.Option(metavar="ID", help="Make the context of this session, which is read from the server.")
    ] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="KEY=VALUE", help="A variable, which counts as secret; can be repeated."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="KEY[=VALUE]",
            help="The same; its KEY alone takes the value from your environment. Can be repeated.",
        ),
    ] = None,
) -> None:
    """Call one tool, and print what it returns.

    It runs here, outside of any execution, and outside of any session unless one is given. What it reports is written
    to the standard error as it comes; nothing is stored. Ctrl-C cancels it.
    """
    registry = importing.tools(path)
    # The machinery of tools is loaded here, and only here.
    from runstream.runner import AgentFailure, ToolDispatcher  # noqa: PLC0415

    variables = {key: each.value for key, each in pairs.variables(env or (), secret or ()).items()}
    arguments = _given(data, stdin=True)
    made = await _context(client, _object(_given(made_of)), session, variables)
    try:
        result = await ToolDispatcher(registry).call(name, arguments, made)
    except AgentFailure as failure:
        raise _told(failure) from failure
    except asyncio.CancelledError:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # within a task
            raise
        raise Failure(f"The tool {name!r} has cancelled itself.", code="CANCELLED") from None
    _print(client.output, result)


def list_tools(context: typer.Context, *, path: ImportOption, output: OutputOption = None) -> None:
    """List the tools of a module; JSON and YAML have their schemas too."""
    connection = Connection(output=output).under(context.obj)

    def show() -> None:
        registry = importing.tools(path)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("NAME", no_wrap=True)
        table.add_column("DESCRIPTION", no_wrap=True, overflow="ellipsis")
        for tool in registry:
            table.add_row(tool.name, one_line(tool.description.partition("\n\n")[0], _WIDTH))
        Output(connection.format).value(registry.schemas(), table)

    end(connection, show)


def schema(context: typer.Context, name: NameArgument, *, path: ImportOption, output: OutputOption = None) -> None:
    """Show what a tool is, and takes, as a model is told: name, description, and the JSON schema of its arguments."""
    connection = Connection(output=output).under(context.obj)

    def show() -> None:
        registry = importing.tools(path)
        tool = registry.get(name)
        if tool is None:
            raise Failure(f"There is no tool {name!r}; there are {', '.join(registry.names)}", code="NOT_FOUND")
        declared = tool.declaration()
        person = Text(clean(json.dumps(declared, indent=2, ensure_ascii=False)))
        Output(connection.format).value(declared, person)

    end(connection, show)


async def _context(
    client: Client, given: dict[str, Any], session_id: str, variables: dict[str, str]
) -> "ExecutionContext":
    """Make the context of the call, whose reports are written as they come."""
    from runstream.runner import ContextInvalid, build_context  # noqa: PLC0415 — as above
    from runstream.runner.aside import aside  # noqa: PLC0415 — as above
    from runstream.runner.context.build import STATELESS_SENTINEL, Given  # noqa: PLC0415 — as above
    from runstream.runner.context.value import replaced  # noqa: PLC0415 — as above

    if unknown := sorted(given.keys() - Given.__annotations__.keys()):
        raise Misuse(f"--context: has no {', '.join(unknown)}; it has {', '.join(Given.__annotations__)}")
    if session_id and "session" in given:
        raise Misuse("--session and a session in --context exclude each other")
    if session_id and session_id != STATELESS_SENTINEL:
        found = await resources.find(client, SESSION, session_id)
    else:
        found = None
    try:
        made = build_context(from_session=found, **given)
    except (ContextInvalid, TypeError) as error:
        raise Misuse(f"--context: {error}") from None
    work = aside(made.budget, variables, hear=_Reports(client.output).hear, executions=_reachable(client))
    return replaced(made, _work=work)


def _reachable(client: Client) -> "Executions":
    """Return the service for what the tool delegates; unlike a runner, it does not wait for a server for ever."""
    from runstream.runner import AgentFailure  # noqa: PLC0415 — as above
    from runstream.runner.executions import Executions  # noqa: PLC0415 — as above

    class Reachable(Executions):
        async def agent_id(self, agent: str, org: str) -> str:
            """Return the id of an agent. AgentFailure, reason SERVER_UNREACHABLE."""
            try:
                async with asyncio.timeout(client.connection.seconds):
                    await client.channel.channel_ready()
            except TimeoutError:
                told = f"Cannot reach the server at {client.connection.address}."
                raise AgentFailure("SERVER_UNREACHABLE", told) from None
            return await super().agent_id(agent, org)

    return Reachable(client.channel)


class _Reports:
    """Writes what a tool reports for a person, a line for each step."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._calls: dict[str, ToolCall] = {}
        self._agents: dict[str, SubAgentExecution] = {}

    def hear(self, delta: "AgentExecutionStatus") -> None:
        """Write what a delta tells to the standard error."""
        for line in self._lines(delta, datetime.now(UTC)):
            self._output.errors.print(line, soft_wrap=True)

    def _lines(self, delta: "AgentExecutionStatus", now: datetime) -> "Iterator[Text]":
        for message in delta.messages:
            if text := message.content or message.content_append:
                yield wording.spoken(message.type, "", text)
        for part in delta.tool_calls:
            call = self._calls.setdefault(part.id, ToolCall())
            call.MergeFrom(part)
            if call.status != TOOL_CALL_PENDING:
                yield Text.assemble("  " if call.parent_call_id else "", wording.tool_call(call, "", _WIDTH, now))
        for entry in delta.sub_agent_executions:
            agent = self._agents.setdefault(entry.id, SubAgentExecution())
            agent.MergeFrom(entry)
            yield wording.sub_agent(agent, _WIDTH, now)
        for item in delta.todos.values():
            yield wording.todo(item, _WIDTH)
        if spent := wording.usage(delta.usage):
            yield Text(spent, style="dim")


def _given(option: str, *, stdin: bool = False) -> str:
    """Return what an option gives: itself, or what stands in the file that it names. Raises `Misuse`."""
    if option.startswith("@"):
        return documents.read_text(Path(option.removeprefix("@")))
    return documents.read_text(Path("-")) if stdin and option == "-" else option


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Misuse(f"--context: is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Misuse('--context: must be a JSON object, as in \'{"user": "ada"}\'')
    return found


def _told(failure: "AgentFailure") -> Failure:
    """Return the failure of a tool as commands tell it; of what the tool itself has raised, with its place."""
    place = importing.place(failure.__cause__) if failure.reason == "TOOL_ERROR" and failure.__cause__ else ""
    violations = getattr(failure, "violations", ())
    return Failure(
        failure.message,
        code=_CODES.get(failure.reason, "FAILED"),
        reason=failure.reason,
        fields=[FieldFault(clean(field), clean(told)) for field, told in violations],
        hint=f"it was raised in {place}" if place else "",
    )


def _print(output: Output, result: object) -> None:
    """Write what a tool has returned: a text as it is, anything else as JSON."""
    from runstream.runner.json_safe import to_json  # noqa: PLC0415 — as above

    plain = to_json(result)
    shown = plain if isinstance(plain, str) else json.dumps(plain, indent=2, ensure_ascii=False)
    output.value(plain, Text(clean(shown)))


def _add(body: Any, *examples: str, name: str | None = None) -> None:  # noqa: ANN401 — any command
    add_command(app, body, *(f"runstream tool {example}" for example in examples), name=name)


_add(
    call,
    """call search --import my_tools:registry --data '{"query": "shells"}'""",
    """call search --import my_tools:registry --data @query.json --context '{"user": "ada", "max_duration": 5}'""",
    "call search --import my_tools:registry --session ses_… --secret API_KEY -o json",
)
_add(list_tools, "list --import my_tools:registry", "list --import my_tools:registry -o json", name="list")
_add(schema, "schema search --import my_tools:registry")
