"""Compaction: LevelDB writes its tables in one thread of its own, which gives way to those that clients wait for.

LevelDB starts that thread once in a process, when there is something to compact for the first time, and on Linux a
thread is as nice as the one that started it. So the database is opened in a thread that is nice, which has it started
there and then. Elsewhere than on Linux niceness belongs to processes, and nothing is done.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: Beside a thread of ours that is busy all the time, compaction has a tenth of a core. With much less, tables would
#: wait on a busy machine until LevelDB holds up writes.
NICENESS: Final = 10
#: A range in which there are no keys: each begins with a letter.
_NOTHING: Final = (b"\xfe", b"\xff")


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
    database = open_database()
    database.compact_range(start=_NOTHING[0], stop=_NOTHING[1])
    return database
