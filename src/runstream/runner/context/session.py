"""Session: the context of a caller that has the id of a session and nothing else. Nothing else here reads a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from runstream.runner.calls import until_answered
from runstream.runner.context.build import STATELESS_SENTINEL, build_context
from runstream.runner.errors import AgentFailure, ContextInvalid
from runstream.runner.refusals import Refusal
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.session_service_pb2_grpc import SessionQueryControllerStub

if TYPE_CHECKING:
    from typing import Unpack

    from grpc.aio import Channel

    from runstream.runner.context.build import Given
    from runstream.runner.context.value import ExecutionContext
    from runstream.v1.session_pb2 import Session

#: How the server refuses an id that is none of a session.
_NO_SESSION = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


async def context_of_session(channel: Channel, session_id: str, **given: Unpack[Given]) -> ExecutionContext:
    """Make a context of a session, which is read from the server once, and of what is given beside it.

    ContextInvalid, naming the field, when there is no such session. `stateless_execution` is none, and nothing is read.
    """
    if session_id == STATELESS_SENTINEL:
        given["session"] = session_id
        return build_context(**given)
    return build_context(from_session=await _read(channel, session_id), **given)


async def _read(channel: Channel, session_id: str) -> Session:
    if not session_id:
        raise ContextInvalid([("session", "must be the id of a session, not empty")])
    try:
        return await until_answered(SessionQueryControllerStub(channel).Get, ResourceId(value=session_id))
    except Refusal as refused:
        if refused.code in _NO_SESSION:
            told = f"must be the id of a session that the server has, not {session_id!r}"
            raise ContextInvalid([("session", told)]) from refused
        raise AgentFailure(refused.reason or refused.code.name, refused.message) from refused
