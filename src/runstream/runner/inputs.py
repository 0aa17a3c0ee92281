"""Inputs: asking a person for a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.runner.errors import Paused
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    EXECUTION_WAITING_FOR_INPUT,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from runstream.runner.desk import Desk
    from runstream.runner.messages import Message


async def ask(desk: Desk, prompt: Message | None, text: str) -> str:
    """Say `text` as the prompt, if there is one, and wait for what a person says to it.

    A prompt that was answered in an earlier attempt is not said again. Raises `Paused`.
    """
    answered = desk.record.answer(prompt.id) if prompt is not None else None
    if answered is not None:
        return answered
    await desk.mailbox.begin_input()
    with desk.mailbox.waiting_for_input():
        try:
            return await _ask(desk, prompt, text)
        except Paused:
            raise
        except BaseException:
            if not desk.mailbox.stopping:
                desk.outbox.post(AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS))
            raise


async def _ask(desk: Desk, prompt: Message | None, text: str) -> str:
    if prompt is not None:
        await prompt.text(text)
    known = desk.mailbox.newest_input
    waiting = AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_INPUT)
    receipt = await desk.outbox.record(waiting, gather=True)
    # Not the revision of the server's answer: by the time that it was read, a person may have spoken already.
    return await desk.mailbox.said_after(max(known, receipt.before))
