"""Pairs: `K=V` arguments as labels, variables and secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runstream.cli.failure import Misuse
from runstream.v1.agent_execution_pb2 import ExecutionValue

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: Sequence[str], option: str) -> dict[str, str]:
    """Return the pairs of an option that is given once per pair. Raises `Misuse`."""
    pairs: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not key or not equals:
            raise Misuse(f"{option} takes KEY=VALUE, not {argument!r}")
        pairs[key] = value
    return pairs


def variables(env: Sequence[str], secrets: Sequence[str]) -> dict[str, ExecutionValue]:
    """Return the variables of a run; a secret without a value takes it from the environment.

    Raises `Misuse`, whose message never shows what stands after the equals sign of a secret.
    """
    values = {key: ExecutionValue(value=value) for key, value in parse(env, "--env").items()}
    for secret in secrets:
        key, equals, value = secret.partition("=")
        if not key:
            raise Misuse("--secret takes KEY=VALUE, or the KEY of an environment variable")
        if not equals:
            value = _from_environment(key)
        values[key] = ExecutionValue(value=value, is_secret=True)
    return values


def _from_environment(key: str) -> str:
    try:
        value = os.environ[key]
        value.encode()
    except UnicodeEncodeError:
        raise Misuse(f"--secret {key}: the environment variable is not UTF-8 text") from None
    except KeyError:
        raise Misuse(
            f"--secret {key}: there is no environment variable of that name; set it or use --secret {key}=VALUE"
        ) from None
    return value
