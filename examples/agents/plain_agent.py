"""An agent without any framework: a function.

    python examples/agents/plain_agent.py --server 127.0.0.1:7400
    runstream run plain-adder "2 and 3 and 4"

There is no model in it; where one would be called, a comment says so.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from runstream.runner import Runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.runner import Invocation


async def plain_adder(invocation: Invocation) -> AsyncIterator[str]:
    """Add the numbers of the message, one after the other."""
    numbers = [int(found) for found in re.findall(r"\d+", invocation.message)]
    yield f"I add {len(numbers)} numbers."
    total = 0
    for number in numbers:  # with a model: for as long as it asks for tools
        async with invocation.report.tool("add", {"a": total, "b": number}) as call:
            total = call.result = total + number
    checked = await invocation.context.sub_agent(checker, f"{total} is the sum")
    yield f"The sum is {total}. {checked}"


async def checker(invocation: Invocation) -> str:
    """Agree: a sub-agent, whose reports are marked as its own."""
    await invocation.report.text(f"Somebody says that {invocation.message}. ", kind="thinking")
    return "That was checked."


def main() -> None:
    """Serve the agent until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:7400", help="HOST:PORT of the Runstream server")
    Runner(parser.parse_args().server, agents={"plain-adder": plain_adder}).run()


if __name__ == "__main__":
    main()
