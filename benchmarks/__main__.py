"""Runs every benchmark; arguments go to each."""

from __future__ import annotations

from benchmarks import update_status


def main() -> None:
    """Run them all."""
    update_status.main()


if __name__ == "__main__":
    main()
