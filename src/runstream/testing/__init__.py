"""What it takes to test agents in a second: a server on a temporary folder, scripted agents, a clock moved by hand.

    from runstream.testing import local_server

    async def test_greets():
        async with local_server() as server:
            state = await server.run(greet, "Ada")
        assert state.answer == "Hello, Ada."

`docs/testing.md` teaches it. Inside: `local` is the server, `handle` one execution and what a person does with it,
`state` what a test looks at, `script` and `steps` agents without a model, `clock` the time, `sync` the same for tests
that are plain functions, `fixtures` the fixtures of pytest.
"""

from runstream.testing.clock import ManualClock
from runstream.testing.follow import NotReached
from runstream.testing.handle import Handle
from runstream.testing.local import LocalServer, local_server
from runstream.testing.phases import Phase
from runstream.testing.script import Script
from runstream.testing.state import State
from runstream.testing.steps import (
    Ask,
    End,
    Fail,
    Gate,
    Hang,
    Raise,
    Say,
    Sleep,
    Step,
    Tool,
)
from runstream.testing.sync import SyncHandle, SyncServer, local_server_sync

__all__ = [
    "Ask",
    "End",
    "Fail",
    "Gate",
    "Handle",
    "Hang",
    "LocalServer",
    "ManualClock",
    "NotReached",
    "Phase",
    "Raise",
    "Say",
    "Script",
    "Sleep",
    "State",
    "Step",
    "SyncHandle",
    "SyncServer",
    "Tool",
    "local_server",
    "local_server_sync",
]
