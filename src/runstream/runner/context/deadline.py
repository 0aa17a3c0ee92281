"""Deadline: what is done in a context ends with it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runstream.runner.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.runner.context.value import ExecutionContext


@asynccontextmanager
async def within_deadline(context: ExecutionContext, what: str) -> AsyncIterator[None]:
    """Cancel what is done in the block when the context's deadline is over. DeadlineExceeded then, or at once."""
    remaining = context.remaining()
    if remaining is None:
        yield
        return
    if remaining == 0:
        raise DeadlineExceeded(what)
    limit = asyncio.timeout(remaining)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired() or isinstance(error, DeadlineExceeded):
            raise  # of something within
        raise DeadlineExceeded(what) from None
