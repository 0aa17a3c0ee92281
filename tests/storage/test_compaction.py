from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import plyvel
import pytest

from runstream.storage.compaction import NICENESS, open_with_nice_compaction

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux only")

#: In a process of its own, since LevelDB starts its thread once. Prints how nice are the threads that Python did not
#: start, once there was something to compact, and then the process.
_PROGRAM = """
import os, sys, threading, plyvel
from pathlib import Path
from runstream.storage.compaction import open_with_nice_compaction

def foreign():
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    for thread in set(os.listdir("/proc/self/task")) - ours:
        yield int(Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[16])

os.nice(int(sys.argv[2]))
db = open_with_nice_compaction(lambda: plyvel.DB(sys.argv[1], create_if_missing=True, write_buffer_size=1 << 16))
for number in range(2_000):
    db.put(b"key %d" % number, os.urandom(200))
assert list(Path(sys.argv[1]).glob("*.ldb")), "nothing was compacted"
print({*foreign()}, os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.parametrize(("niceness", "compaction"), [(0, NICENESS), (15, 15)])
def test_compaction_gives_way_to_all_else(tmp_path: Path, niceness: int, compaction: int) -> None:
    """LevelDB's thread is nicer than those that clients wait for, and never less nice than the process was made."""
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "db"), str(niceness)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"{{{compaction}}} {niceness}"


def test_what_cannot_be_opened_is_told_as_ever(tmp_path: Path) -> None:
    """The error of the database comes through."""
    with pytest.raises(plyvel.Error, match="does not exist"):
        open_with_nice_compaction(lambda: plyvel.DB(str(tmp_path / "db"), create_if_missing=False))


def test_a_database_is_opened_and_not_asked_for_anything() -> None:
    """Whoever starts after a crash waits for no compaction: what is asked of a database is answered behind that."""
    asked: list[str] = []

    class Asked:
        """Notes what is asked of a database that has just been opened."""

        def __getattr__(self, name: str) -> object:
            asked.append(name)
            return lambda **_: None

    assert isinstance(open_with_nice_compaction(Asked), Asked)
    assert asked == []
