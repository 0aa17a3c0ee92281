"""Compaction: LevelDB writes its tables in one thread of its own, which gives way to those that clients wait for.

LevelDB starts that thread once in a process, when there is something to compact for the first time, and on Linux a
thread is as nice as the one that started it. So a thread that is nice has an empty database compacted, and then opens
the real one. The real one is not asked for anything: it may have much to compact after a crash, and whoever asks is
answered behind that. Elsewhere than on Linux niceness belongs to processes, and nothing is done.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import plyvel

if TYPE_CHECKING:
    from collections.abc import Callable

#: Beside a thread that is busy all the time, compaction has a quarter of a core. With much less, tables would wait on
#: a busy machine, and writers for the tables.
NICENESS: Final = 5


def open_with_nice_compaction(open_database: Callable[[], Any]) -> Any:  # noqa: ANN401  # plyvel has no types
    """Open a database, such that its compaction has less of the processor than the rest; blocks, and raises as it."""
    if sys.platform != "linux":
        return open_database()
    with ThreadPoolExecutor(1, thread_name_prefix="runstream-open") as nice:
        return nice.submit(_open, open_database).result()


def _open(open_database: Callable[[], Any]) -> Any:  # noqa: ANN401  # plyvel has no types
    me = threading.get_native_id()
    with suppress(OSError):  # where it is not allowed, compaction is as it would be
        os.setpriority(os.PRIO_PROCESS, me, max(NICENESS, os.getpriority(os.PRIO_PROCESS, me)))
    with suppress(OSError, plyvel.Error):  # as where there is no room for it
        _start_compaction()
    return open_database()


def _start_compaction() -> None:
    with tempfile.TemporaryDirectory(prefix="runstream-", ignore_cleanup_errors=True) as folder:
        database = plyvel.DB(str(Path(folder) / "empty"), create_if_missing=True)
        database.compact_range()
        database.close()
