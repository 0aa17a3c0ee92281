"""A server in a process of its own, whose disk, clock and processor can be made to fail while it runs."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

from tests.end_to_end.storm import StormServer
from tests.faults.clock import WallClock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: As the server of other tests, with a clock that can be set.
_SERVE = """
import json, os, sys
from pathlib import Path
from tests.lifeline import end_with_parent

end_with_parent()

import runstream.server
from runstream.settings import Settings
from tests.faults.clock import SetClock, WallClock

wall = WallClock(Path(os.environ["FAULTS_CLOCK"]))
runstream.server.SystemClock = lambda: SetClock(wall)
runstream.server.serve(Settings(**json.loads(sys.argv[1])))
"""


class FaultyServer(StormServer):
    """A server that things can be done to, each of which can be undone."""

    program = _SERVE

    def __init__(
        self,
        data: Path,
        *,
        place: Path | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,  # noqa: ANN401  # a setting of any type
    ) -> None:
        """Take the data folder, where its clock is to be, what the environment is to say beside, and the settings."""
        super().__init__(data, **settings)
        file = (place or data.parent) / f"{data.name}.clock"
        file.parent.mkdir(parents=True, exist_ok=True)
        self.clock = WallClock(file)
        self.environment = {**(environment or {}), "FAULTS_CLOCK": str(file)}

    def refuse_writes(self, after: int = 0) -> None:
        """Have the disk refuse what makes a file longer than the log is now, and so many bytes."""
        newest = max((file.stat().st_size for file in (self.data / "leveldb").glob("*.log")), default=0)
        self._limit_files(newest + after)

    def take_writes(self) -> None:
        """Have the disk take everything again."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, longest: int) -> None:
        """Limit how long files get; beyond that a write takes a part and then fails with EFBIG, wherever it is."""
        assert self._process is not None
        if self._process.returncode is None:
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (longest, resource.RLIM_INFINITY))
