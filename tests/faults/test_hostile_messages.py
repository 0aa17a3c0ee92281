"""Whatever bytes come, to whichever method: a clear answer, nothing half-done, and everybody else is served."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.care.folders import findings_of
from tests.faults.hostile import HostileMessages
from tests.faults.onslaught import Onslaught
from tests.making import agent, an_execution, execution, instance, session, token
from tests.process import ROUNDS, server_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Client

#: How many messages each method gets.
EACH = 40
#: No line of the log is longer, whatever was in a request.
LONGEST_LINE = 20_000


async def some_names(client: Client) -> list[str]:
    """Make one of everything, and a few executions; return their ids."""
    made = await client.agents.Create(agent("survey"))
    there = await client.instances.Create(instance(made.metadata.id))
    talk = await client.sessions.Create(session(there.metadata.id))
    names = [made.metadata.id, there.metadata.id, talk.metadata.id]
    for _ in range(8):
        created = await client.executions.Create(execution(session_id=talk.metadata.id))
        names.append(created.metadata.id)
    return names


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
async def test_hostile_messages_get_clear_answers_and_leave_a_sound_server(tmp_path: Path, seed: int) -> None:
    """No INTERNAL, no UNKNOWN, no call that hangs; then a client is served as ever, and the folder is sound."""
    async with server_process(tmp_path / "data", log_level="info") as server, server.client() as client:
        messages = HostileMessages(random.Random(seed), await some_names(client))
        onslaught = Onslaught(client.channel, messages)
        await onslaught.run(EACH)
        assert onslaught.told["OK"] > EACH  # not all of it stops at the first rule
        answer = await client.executions.UpdateStatus(token(await an_execution(client, agent="as ever"), "hello"))
        assert answer.metadata.revision == 2
        assert await server.terminate() == 0
        assert [line for line in server.log if '"level": "error"' in line or '"level": "critical"' in line] == []
        assert max(map(len, server.log)) < LONGEST_LINE
    assert findings_of(tmp_path / "data") == []
