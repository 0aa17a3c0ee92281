"""`runstream doctor`: tells whether a data folder is sound, and mends what can be derived again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from runstream.cli.calling import end
from runstream.cli.connection import Connection, OutputOption
from runstream.cli.exit_codes import ExitCode
from runstream.cli.folders import DataArgument, opened
from runstream.cli.output import Output
from runstream.cli.plain_text import clean
from runstream.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from runstream.care.doctor import Diagnosis
    from runstream.care.findings import Finding

#: How many findings a person is shown; scripts get all.
_SHOWN: Final = 200
#: The records that a person asks for, by the names of their kinds.
_COUNTED: Final = {
    "agent": "agents",
    "agent_instance": "instances",
    "session": "sessions",
    "execution_head": "executions",
    "tombstone": "deleted executions",
}


def doctor(
    context: typer.Context,
    data: DataArgument,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be derived again; then look at everything once more.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Check everything in a data folder: logs, states, indexes, names, leases, references.

    Ends with 0 when all is as it must be, else with 1. With -o json, each finding is a line, the summary the last.
    """
    connection = Connection(output=output).under(context.obj)

    def body() -> ExitCode:
        shown = Output(connection.format)
        findings = _Findings(shown)
        from runstream.care.doctor import diagnose  # noqa: PLC0415 — loaded here, and only here
        from runstream.care.doctor import repair as mend  # noqa: PLC0415 — as above

        mended: Mapping[str, int] = {}
        with progress_bar(shown) as progress, opened(data, "doctor") as folder:
            if repair:
                treatment = mend(folder, findings.add, progress)
                diagnosis, mended = treatment.after, treatment.mended
            else:
                diagnosis = diagnose(folder, findings.add, progress)
        findings.close()
        _summarize(shown, diagnosis, mended)
        return ExitCode.DONE if diagnosis.sound else ExitCode.CALL_FAILED

    end(connection, body)


class _Findings:
    """Shows findings as they come."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._count = 0

    def add(self, finding: "Finding") -> None:
        """Show one."""
        self._count += 1
        if not self._output.for_people:
            self._output.part({"finding": finding.plain()})
        elif self._count <= _SHOWN:
            mark = " (can be repaired)" if finding.repairable else ""
            line = Text(finding.code.value, style="yellow" if finding.repairable else "red")
            line.append(clean(f"  {finding.where}: {finding.told}{mark}"), style="default")
            self._output.say(line)

    def close(self) -> None:
        """Say how many were not shown."""
        if self._output.for_people and self._count > _SHOWN:
            self._output.say(f"… and {self._count - _SHOWN} more; -o json writes all")


def _summarize(output: Output, diagnosis: "Diagnosis", mended: Mapping[str, int]) -> None:
    found, repairable = diagnosis.found.total(), diagnosis.repairable.total()
    if not output.for_people:
        summary = {
            "sound": diagnosis.sound,
            "mended": _plain(mended),
            "found": _plain(diagnosis.found),
            "repairable": _plain(diagnosis.repairable),
            "records": _plain(diagnosis.records),
        }
        output.part({"summary": summary})
        return
    if mended:
        output.say(f"mended: {_listed(mended)}")
    if diagnosis.sound:
        counts = ", ".join(f"{diagnosis.records[kind]} {name}" for kind, name in _COUNTED.items())
        output.say(f"sound: {counts}")
        return
    output.say(f"not sound: {_listed(diagnosis.found)}")
    if repairable:
        output.say(f"--repair would mend {repairable} of {found}")
    else:
        output.say("nothing of it can be derived again; restore a backup, or leave it and be warned")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(_plain(counts).items()))


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items() if count}
