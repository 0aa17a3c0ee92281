"""`runstream restore`, `compact`: data folders that no server holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runstream.cli.calling import end
from runstream.cli.connection import Connection, OutputOption
from runstream.cli.failure import Failure
from runstream.cli.output import Output
from runstream.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from runstream.storage.offline import OfflineFolder

DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="The data folder; no server may run on it.")]

_MIB: Final = 1 << 20


def _nothing(_address: str) -> str:
    return ""


@contextmanager
def failures(while_served: Callable[[str], str] = _nothing) -> Iterator[None]:
    """Turn what is wrong with folders and archives into a `Failure`.

    `while_served` says what can be done instead while a server, at an address, holds the folder.
    """
    # The rooms that know folders are loaded here, and only here.
    from runstream.care.archive import ArchiveError  # noqa: PLC0415
    from runstream.care.backup import TargetTaken  # noqa: PLC0415
    from runstream.storage.folder import DataFolderError, FolderInUse  # noqa: PLC0415

    try:
        yield
    except FolderInUse as error:
        address = error.owner.get("address", "")
        hint = while_served(address) if address else ""
        raise Failure(str(error), reason="FOLDER_IN_USE", hint=hint) from None
    except DataFolderError as error:
        raise Failure(str(error), reason="FOLDER_UNUSABLE") from None
    except TargetTaken as error:
        raise Failure(str(error), reason="TARGET_TAKEN") from None
    except ArchiveError as error:
        raise Failure(f"The backup cannot be used: {error}.", reason="BACKUP_UNUSABLE") from None


@contextmanager
def opened(data: Path, purpose: str, while_served: Callable[[str], str] = _nothing) -> Iterator["OfflineFolder"]:
    """Hold a data folder for the length of the block; raises a `Failure`, as `failures` does."""
    from runstream.storage.offline import OfflineFolder  # noqa: PLC0415 — as in `failures`

    with failures(while_served), OfflineFolder.open(data, purpose=f"runstream {purpose}") as folder:
        yield folder


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `runstream backup` has written.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The data folder to make; missing or empty.")],
    *,
    output: OutputOption = None,
) -> None:
    """Make a data folder out of a backup.

    Every check sum is verified before the folder appears; a file that is torn or altered makes none.
    """
    connection = Connection(output=output).under(context.obj)

    def body() -> None:
        from runstream.care.backup import restore as read  # noqa: PLC0415 — as in `failures`

        shown = Output(connection.format)
        with progress_bar(shown) as progress, failures():
            head = read(file, data, progress)
        told = f"made {data} out of the backup of {head.created}: {head.keys} keys, {mib(head.bytes)}"
        shown.value({"data": str(data), "created": head.created, "keys": head.keys, "bytes": head.bytes}, told)

    end(connection, body)


def compact(context: typer.Context, data: DataArgument, *, output: OutputOption = None) -> None:
    """Rewrite a database without what was removed or written over, which gives the space back."""
    connection = Connection(output=output).under(context.obj)

    def body() -> None:
        shown = Output(connection.format)
        with opened(data, "compact") as folder:
            before = folder.size
            folder.compact()
            after = folder.size
        told = f"{data}: {mib(before)} before, {mib(after)} now"
        shown.value({"data": str(data), "bytes_before": before, "bytes_after": after}, told)

    end(connection, body)


def mib(size: int) -> str:
    """Return a size in words."""
    return f"{size / _MIB:.1f} MiB"
