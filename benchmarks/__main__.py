"""Runs the benchmarks; arguments go to each. `python -m benchmarks dispatch --help` tells those of one."""

from __future__ import annotations

import sys

from benchmarks import context, dispatch, update_status

BENCHMARKS = {"update_status": update_status.main, "dispatch": dispatch.main, "context": context.main}


def main() -> None:
    """Run the one that the first argument names, with the others; without a name, all of them."""
    names = [sys.argv.pop(1)] if len(sys.argv) > 1 and sys.argv[1] in BENCHMARKS else list(BENCHMARKS)
    for name in names:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
