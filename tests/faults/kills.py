"""Processes that are killed, or asked to end, and started again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.end_to_end.runner_process import ATTACHED

if TYPE_CHECKING:
    from tests.faults.system import System


class KillServer:
    """SIGKILL to the server; what it leaves is checked, and it is started on that."""

    async def strike(self, system: System) -> None:
        """Kill and start it."""
        await system.storm.kill_server()


class KillRunner:
    """SIGKILL to a runner; another one takes its place."""

    async def strike(self, system: System) -> None:
        """Kill one and start one."""
        await system.storm.replace(system.random.choice(system.storm.running))


class KillBoth:
    """SIGKILL to the server and to some or all runners at the same moment."""

    async def strike(self, system: System) -> None:
        """Kill them and start as many."""
        storm = system.storm
        victims = system.random.sample(storm.running, system.random.randrange(1, len(storm.running) + 1))
        storm.server.strike()
        for victim in victims:
            victim.strike()
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.kill_server())
            for victim in victims:
                group.create_task(storm.replace(victim))


class EndServer:
    """SIGTERM to the server, as an operator does."""

    async def strike(self, system: System) -> None:
        """End and start it."""
        await system.storm.end_server()


class EndRunner:
    """SIGTERM to a runner, as an operator does; another one takes its place."""

    async def strike(self, system: System) -> None:
        """Start one and end one."""
        storm = system.storm
        victim = system.random.choice(storm.running)
        await victim.has_written(ATTACHED)  # from then on it hears signals
        storm.tally["runners asked to end"] += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.start_runner())
            ending = group.create_task(victim.terminate())
        assert ending.result() == 0, victim.log
