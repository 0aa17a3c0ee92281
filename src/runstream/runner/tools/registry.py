"""Registry: the tools there are, by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar, overload

from runstream.model.tool_names import sanitised
from runstream.runner.tools.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.decisions import Approval

F = TypeVar("F", bound="Callable[..., Any]")


class ToolRegistry:
    """Typed functions that agents may use, by name. Names are sanitised when tools are added and when they are found.

    Iterating yields the tools, in the order in which they were added.
    """

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    def __repr__(self) -> str:
        return f"ToolRegistry({', '.join(self._tools)})"

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(tuple(self._tools.values()))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and sanitised(name) in self._tools

    def __getitem__(self, name: str) -> Tool:
        return self._tools[sanitised(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tools, sanitised."""
        return tuple(self._tools)

    def get(self, name: str) -> Tool | None:
        """Return the tool of a name, if there is one."""
        return self._tools.get(sanitised(name))

    def add(
        self, function: Callable[..., Any], *, name: str = "", description: str = "", approval: Approval | None = None
    ) -> Tool:
        """Add a function as a tool, and return the tool.

        The function is async, or plain, and then run in a thread. What its parameters are annotated with says what
        arguments it takes; a parameter that is an ExecutionContext is no argument, but given the context of the call.
        Name and description are its own name and docstring unless given. With `approval`, a person is asked before each
        use. TypeError for a function whose arguments cannot be given as JSON, ValueError for a name that is taken.
        """
        tool = Tool(function, name=name, description=description, approval=approval)
        taken = self._tools.get(tool.name)
        if taken is not None:
            raise ValueError(
                f"the tools {taken.given_name!r} and {tool.given_name!r} would both be called {tool.name!r}"
            )
        self._tools[tool.name] = tool
        return tool

    @overload
    def tool(self, function: F, /) -> F: ...

    @overload
    def tool(
        self, /, *, name: str = "", description: str = "", approval: Approval | None = None
    ) -> Callable[[F], F]: ...

    def tool(
        self,
        function: F | None = None,
        /,
        *,
        name: str = "",
        description: str = "",
        approval: Approval | None = None,
    ) -> F | Callable[[F], F]:
        """Add the function that is decorated, which stays as it is: `@registry.tool`, or with options as `add` has."""

        def added(function: F) -> F:
            self.add(function, name=name, description=description, approval=approval)
            return function

        return added if function is None else added(function)

    def near(self, name: str, context: ExecutionContext) -> list[str]:
        """Return the names most like `name`, of the tools that a context allows."""
        allowed = [known for known in self._tools if context.allows(known)]
        return difflib.get_close_matches(sanitised(name), allowed)

    def schemas(self, context: ExecutionContext | None = None) -> list[dict[str, Any]]:
        """Return the declaration of each tool: name, description, parameters. With a context, of those it allows."""
        return [tool.declaration() for tool in self if context is None or context.allows(tool.name)]
