"""The frameworks, which are optional: a test of one that is missing is skipped, except where all of them must be."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def require(name: str) -> Any:  # noqa: ANN401  # a module
    """Return the module of a framework; skip the tests of the module that asks for it when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name} is not installed: make frameworks", allow_module_level=True)
