"""Waiting for a refusal: the moment in which a server has told somebody that there is no place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runstream.transport.tally import Tally

if TYPE_CHECKING:
    import pytest

    from runstream.model.errors import ResourceExhausted


def hear_of_refusals(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return what is set when a tally has refused a place; the refusal goes out as ever."""
    heard, told = asyncio.Event(), Tally._full  # noqa: SLF001  # the one place that every refusal comes from

    def full(tally: Tally, client: str) -> ResourceExhausted:
        heard.set()
        return told(tally, client)

    monkeypatch.setattr(Tally, "_full", full)
    return heard
