"""Tool: a typed function that agents may use."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runstream.model.tool_names import sanitised
from runstream.runner.errors import ToolArgumentsInvalid
from runstream.runner.tools.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.decisions import Approval
    from runstream.runner.tools.parameters import Checked


class Tool:
    """A function, the name it is called by, and what is said of it to models and people."""

    def __init__(
        self, function: Callable[..., Any], *, name: str = "", description: str = "", approval: Approval | None = None
    ) -> None:
        """Read a function. TypeError, or ValueError for its name, when it cannot be a tool."""
        own = inspect.unwrap(function.func if isinstance(function, functools.partial) else function)
        #: The name as it was given.
        self.given_name: str = name or getattr(own, "__name__", "").replace("<lambda>", "")
        #: The name as tools are compared, here and by models' providers.
        self.name: str = sanitised(self.given_name)
        if not self.name:
            raise ValueError(f"a tool needs a name, which {own!r} has not; give one")
        if _is(inspect.isasyncgenfunction, function) or _is(inspect.isgeneratorfunction, function):
            raise TypeError(f"the tool {self.name!r} is a generator; a tool returns its result")
        self.description: str = description or inspect.getdoc(own) or ""
        #: Asks a person before each use.
        self.approval = approval
        self.function = function
        #: Whether it blocks: it then runs in a thread.
        self.blocks: bool = not _is(inspect.iscoroutinefunction, function)
        self._parameters = Parameters(function, self.name)

    def __repr__(self) -> str:
        return f"<tool {self.name}>"

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments, which is the caller's to change."""
        return copy.deepcopy(self._parameters.schema)

    def declaration(self) -> dict[str, Any]:
        """Return its name, description and parameters, as models' providers take the declaration of a function."""
        return {"name": self.name, "description": self.description, "parameters": self.schema}

    def check(self, arguments: Mapping[str, object]) -> Checked:
        """Return the arguments as the function takes them. ToolArgumentsInvalid names every one that is wrong."""
        return self._parameters.check(arguments)

    def bound(self, checked: Checked, context: ExecutionContext) -> Callable[[], Any]:
        """Return the function with all that it takes."""
        return functools.partial(self.function, **checked, **dict.fromkeys(self._parameters.of_context, context))


def read(name: str, arguments: Mapping[str, object] | str | bytes) -> Mapping[str, object]:
    """Return the arguments of a call of a tool, of JSON as models write it. ToolArgumentsInvalid when it is none.

    No text at all is no arguments.
    """
    if isinstance(arguments, Mapping):
        return arguments
    try:
        found = json.loads(arguments, parse_constant=_refuse) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ToolArgumentsInvalid(name, [("", f"they are not JSON: {error}")]) from None
    if not isinstance(found, dict):
        raise ToolArgumentsInvalid(name, [("", f"they must be a JSON object, not {type(found).__name__}")])
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _is(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    return kind(function) or kind(getattr(type(function), "__call__", None))  # noqa: B004  # of an object that is called
