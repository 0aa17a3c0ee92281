"""A server process with a fault in it: logs as `runstream serve` does, gets a request with a secret, and fails on it.

Arguments: a data folder and the log format.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

from runstream.logs import configure_logging
from runstream.services.executions.create import CompleteContext
from runstream.settings import load_settings
from tests.making import an_agent, execution
from tests.serving import refusal, serving

SECRET = "hush-hush"  # noqa: S105  # it is not to be found in the log


async def fail(_: CompleteContext, context: Any) -> None:  # noqa: ANN401
    """Fail where the request and the state, secrets and all, are at hand."""
    request, state = context.request, context.state
    raise ZeroDivisionError(f"{request.metadata.name} {state.metadata.name}")


async def main(data: Path, log_format: Any) -> None:  # noqa: ANN401
    """Serve, fail, log something by the standard library as well, and end."""
    configure_logging(load_settings(None, log_format=log_format))
    setattr(CompleteContext, "__call__", fail)  # noqa: B010  # the fault
    async with serving(data) as running:
        request = execution(agent_id=await an_agent(running.client), name="fails")
        request.spec.runtime_env["HIDDEN"].value = SECRET
        request.spec.runtime_env["HIDDEN"].is_secret = True
        await refusal(running.client.executions.Create(request, metadata=(("x-request-id", "mine"),)))
    fault = OSError("disk on fire")
    logging.getLogger("runstream.storage").error("a write to %s failed", "the data folder", exc_info=fault)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
