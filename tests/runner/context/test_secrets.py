"""Secrets: had by name while the run lasts, and seen nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from runstream.runner.context import SecretsFilter, SecretsGone, SecretUnknown
from runstream.runner.context.secrets import Secrets
from runstream.testing import local_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.runner import ExecutionContext, Invocation

_LOG = logging.getLogger("somebody.else")


@pytest.fixture
def secrets() -> Iterator[Secrets]:
    """Hold two secrets, one within the other, and a variable that is none."""
    made = Secrets({"KEY": "sesame", "LONG": "open sesame", "MODE": "fast"}, ["KEY", "LONG"])
    yield made
    made.release()


def test_a_variable_is_had_by_name_and_its_value_is_in_no_repr(secrets: Secrets) -> None:
    assert (secrets.get("KEY"), secrets.get("MODE")) == ("sesame", "fast")
    assert repr(secrets) == "Secrets(KEY, LONG, MODE)"
    with pytest.raises(SecretUnknown, match="no variable 'KYE'; it has KEY, LONG, MODE"):
        secrets.get("KYE")


def test_after_the_run_it_is_gone(secrets: Secrets) -> None:
    secrets.forget()
    secrets.forget()
    with pytest.raises(SecretsGone, match="KEY"):
        secrets.get("KEY")
    assert secrets.redacted("sesame") == "***", "somebody may still have it"
    secrets.release()
    secrets.release()
    assert secrets.redacted("sesame") == "sesame"


def test_what_is_logged_is_without_secrets_whoever_logs_it(secrets: Secrets, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(SecretsFilter())
    _LOG.warning("said %s and %d", "open sesame", 7)
    try:
        int("sesame")
    except ValueError:
        _LOG.exception("it said sesame")
    _LOG.warning("does not fit: %d", "sesame")
    assert caplog.messages[0] == "said *** and 7"
    assert "sesame" not in caplog.text
    assert "invalid literal for int() with base 10: '***'" in caplog.text
    secrets.release()
    _LOG.warning("sesame")
    assert caplog.messages[-1] == "sesame"


async def test_two_runs_of_the_same_secret_keep_it_until_both_are_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(SecretsFilter())
    one, other = (Secrets({"KEY": "sesame"}, ["KEY"]) for _ in range(2))
    one.release()
    _LOG.warning("sesame")
    other.release()
    _LOG.warning("sesame")
    assert caplog.messages == ["***", "sesame"]


async def test_an_agent_that_logs_its_secret_does_not_tell_it(caplog: pytest.LogCaptureFixture) -> None:
    contexts: list[ExecutionContext] = []

    async def agent(invocation: Invocation) -> None:
        contexts.append(invocation.context)
        _LOG.warning("the token is %s", invocation.context.secret("TOKEN"))
        assert "hush-hush" not in f"{invocation!r} {invocation.context!r} {invocation.env!r}"

    async with local_server() as server:
        (await server.run(agent, secrets={"TOKEN": "hush-hush"})).expect()
    assert "the token is ***" in caplog.text
    with pytest.raises(SecretsGone):
        contexts[0].secret("TOKEN")


KEY = "-----BEGIN KEY-----\nMIIE\\abcdef'ghij\"klmnöp\n-----END KEY-----"


@pytest.mark.parametrize(
    "told",
    [KEY, repr(KEY), json.dumps(KEY), json.dumps(KEY, ensure_ascii=False), KEY.splitlines()[1], str(KeyError(KEY))],
)
def test_a_secret_is_blanked_however_it_is_written(told: str) -> None:
    secrets = Secrets({"KEY": KEY}, ["KEY"])
    blanked = secrets.redacted(f"it is {told}!")
    secrets.release()
    assert "abcdef" not in blanked
    assert blanked.startswith("it is ")


async def test_a_thread_that_is_left_behind_logs_no_secret_either(caplog: pytest.LogCaptureFixture) -> None:
    go_on, logged = threading.Event(), threading.Event()

    def agent(invocation: Invocation) -> None:
        secret = invocation.env["TOKEN"]
        go_on.wait()
        _LOG.warning("calling with %s", secret)
        logged.set()

    caplog.handler.addFilter(SecretsFilter())
    async with local_server() as server:
        state = await server.run(agent, secrets={"TOKEN": "hush-hush"}, max_duration=0.05)
        assert state.reason == "DEADLINE_EXCEEDED"
        go_on.set()
        await asyncio.to_thread(logged.wait)
    assert "calling with ***" in caplog.text
    assert "hush-hush" not in caplog.text
