"""Secrets: the variables of one run, by name, for as long as it runs; and their values kept out of logs."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runstream.runner.errors import SecretsGone, SecretUnknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: A secret shorter than this is no secret, and replacing it would garble the text.
SHORTEST_SECRET: Final = 4
#: A line of a secret that has several is one by itself from this length on.
_SHORTEST_LINE: Final = 16
BLANK: Final = "***"

#: The values of all secrets of all runs of this process, as long as anybody may still write them.
_LIVE: Counter[str] = Counter()
_LOCK: Final = threading.Lock()


class Secrets:
    """The variables of a run. Its repr tells names and no values; after the run it holds none."""

    def __init__(self, variables: Mapping[str, str], hidden: Iterable[str]) -> None:
        """Take all variables, and the names of those whose values nobody may see."""
        self._variables: dict[str, str] | None = dict(variables)
        forms = {form for name in hidden for form in _forms(variables[name])}
        # The longest first: one may be a part of another.
        self._hidden = sorted(forms, key=len, reverse=True)
        if self._hidden:
            with _LOCK:
                _LIVE.update(self._hidden)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._variables or ()))})"

    @property
    def gone(self) -> bool:
        """Whether the run is over."""
        return self._variables is None

    def get(self, name: str) -> str:
        """Return a variable. SecretUnknown when there is none of that name, SecretsGone after the run."""
        if self._variables is None:
            raise SecretsGone(name)
        if name not in self._variables:
            raise SecretUnknown(name, sorted(self._variables))
        return self._variables[name]

    def redacted(self, text: str) -> str:
        """Return a text without the values of secrets, as they are and as repr and JSON write them."""
        return _blanked(text, self._hidden)

    def forget(self) -> None:
        """Give no variable to anybody any more; the run is over. Their values are still blanked, until `release`."""
        self._variables = None

    def release(self) -> None:
        """Forget every value: whoever had one is gone, too."""
        self.forget()
        if not self._hidden:
            return
        with _LOCK:
            _LIVE.subtract(self._hidden)
            for secret in self._hidden:
                if _LIVE[secret] <= 0:
                    del _LIVE[secret]
        self._hidden = []


def _forms(value: str) -> Iterator[str]:
    """Yield a secret as it may be written: itself, its long lines, and each of those as repr and JSON write it."""
    lines = [line for line in value.splitlines() if len(line) >= _SHORTEST_LINE]
    for part in (value, *lines):
        for form in (part, repr(part)[1:-1], json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
            if len(form) >= SHORTEST_SECRET:
                yield form


class SecretsFilter(logging.Filter):
    """Blanks the secrets of all runs of this process in what is logged; for handlers. Nothing is dropped."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record, if a secret is in it."""
        with _LOCK:
            secrets = sorted(_LIVE, key=len, reverse=True)
        if not secrets:
            return True
        record.msg, record.args = _blanked(_message(record), secrets), None
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = _blanked(record.exc_text, secrets)
        if record.stack_info:
            record.stack_info = _blanked(record.stack_info, secrets)
        return True


@contextmanager
def secrets_kept_out_of_logs() -> Iterator[None]:
    """Have the handlers of the root logger blank secrets, for the length of the block."""
    blanking = SecretsFilter()
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(blanking)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(blanking)


_FORMATTER = logging.Formatter()


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  # a log call whose arguments do not fit, or do not let themselves be written
        return str(record.msg)


def _blanked(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, BLANK)
    return text
