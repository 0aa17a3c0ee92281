"""What a runner holds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runstream.runner.held import Held
from runstream.v1.runner_pb2 import Assignment, RunnerCommand

if TYPE_CHECKING:
    import pytest

    from runstream.runner.run import Run


async def test_an_assignment_that_cannot_be_begun_does_not_end_the_runner(caplog: pytest.LogCaptureFixture) -> None:
    def begin(assignment: Assignment) -> Run:
        raise ValueError(f"no such thing in attempt {assignment.attempt}")

    held = Held(begin)
    command = RunnerCommand()
    command.assign.attempt = 2
    command.assign.execution.metadata.id = "aex_01m7z8kh30kcmnvt0d0d9qj7hc"
    with caplog.at_level(logging.ERROR, "runstream.runner"):
        held.obey(command)
    assert held.named() == [], "the server takes back what no heartbeat names"
    assert "cannot be begun, attempt 2" in caplog.text
    await held.emptied()
