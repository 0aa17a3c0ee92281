"""Tools: a use of a tool, and a registry of typed functions with a dispatcher that uses them. See `docs/tools.md`.

Inside: `handle` reports one use, `tool` is a typed function, `parameters` what it takes, `registry` names them,
`dispatcher` calls them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from runstream.runner.errors import ToolArgumentsInvalid, ToolBroke, ToolNotAllowed, ToolUnknown
from runstream.runner.tools.handle import LONGEST_RESULT, ToolHandle

if TYPE_CHECKING:
    from runstream.runner.tools.dispatcher import ToolDispatcher
    from runstream.runner.tools.registry import ToolRegistry
    from runstream.runner.tools.tool import Tool
else:
    _LATER = {"Tool": "tool", "ToolDispatcher": "dispatcher", "ToolRegistry": "registry"}

    def __getattr__(name: str) -> object:
        """Load what needs the reporter, which itself needs the handle, when it is asked for."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


__all__ = [
    "LONGEST_RESULT",
    "Tool",
    "ToolArgumentsInvalid",
    "ToolBroke",
    "ToolDispatcher",
    "ToolHandle",
    "ToolNotAllowed",
    "ToolRegistry",
    "ToolUnknown",
]
