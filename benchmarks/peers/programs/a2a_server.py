"""A2A's server: the SDK's own request handler, with tasks in SQLite, and an agent that counts."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import DatabaseTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Part,
    Task,
    TaskState,
    TaskStatus,
)
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette

if TYPE_CHECKING:
    from a2a.server.events import EventQueue


class Counting(AgentExecutor):
    """Emits as many numbers as it is told to, each as a piece of one artifact."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Emit them; none for a trivial task."""
        events, pause = context.get_user_input().split()
        task_id, context_id = context.task_id or "", context.context_id or ""
        await event_queue.enqueue_event(
            Task(id=task_id, context_id=context_id, status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED))
        )
        updater = TaskUpdater(event_queue, task_id, context_id)
        for number in range(int(events)):
            await updater.add_artifact([Part(text=str(number))], artifact_id="numbers", append=number > 0)
            await asyncio.sleep(float(pause))  # also without a pause: the loop is shared with the server
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Not asked for."""
        raise NotImplementedError(context, event_queue)


def _card(address: str) -> AgentCard:
    return AgentCard(
        name="bench",
        description="Counts.",
        version="1",
        supported_interfaces=[
            AgentInterface(protocol_binding="JSONRPC", url=f"http://{address}/", protocol_version="1.0")
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="count", name="count", description="Counts.", tags=["bench"])],
    )


def main() -> None:
    """Serve."""
    address = os.environ["PEER_SERVER"]
    card = _card(address)
    store = DatabaseTaskStore(create_async_engine(os.environ["PEER_STORE"]))
    handler = DefaultRequestHandler(agent_executor=Counting(), task_store=store, agent_card=card)
    routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")]
    host, port = address.split(":")
    uvicorn.run(Starlette(routes=routes), host=host, port=int(port), log_level="error")


if __name__ == "__main__":
    main()
