"""The guard of a LangGraph run: keeps what must not be done from being begun, in the graph and all beneath it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.prebuilt.tool_node import ToolInvocationError

from runstream.runner.errors import BudgetExceeded, ToolNotAllowed

if TYPE_CHECKING:
    from runstream.runner.context import ExecutionContext


class Guard(BaseCallbackHandler):  # type: ignore[misc]  # of a package without types here
    """Is asked before each tool and each call of a model."""

    raise_error = True
    #: LangChain calls inline handlers one by one, and leaves coroutines behind when one of them raises.
    run_inline = False

    def __init__(self, context: ExecutionContext) -> None:
        """Guard what is done in this context."""
        super().__init__()
        self._context = context

    def on_tool_start(self, serialized: dict[str, Any] | None, input_str: str, **details: Any) -> None:  # noqa: ANN401
        """Refuse a tool that the context does not allow: the model is told so, and may go on."""
        _ = input_str
        name = (serialized or {}).get("name") or details.get("name") or ""
        if not self._context.allows(name):
            raise Refused(name)

    def on_chat_model_start(self, serialized: object, messages: object, **details: object) -> None:
        """Refuse to call a model when nothing is left to be spent. BudgetExceeded ends the run."""
        _ = serialized, messages, details
        left = self._context.left().limits()
        for name in ("model_calls", "tokens", "cost_micros"):
            if left.get(name) == 0:
                raise BudgetExceeded(name, self._context.budget.limits().get(name, 0))


class Refused(ToolInvocationError):  # type: ignore[misc]  # as above
    """A tool is not allowed. Of this type, because nodes of tools tell the model of it, and let all others pass."""

    def __init__(self, name: str) -> None:
        """Take the tool's name."""
        why = ToolNotAllowed(name)
        super().__init__(name, why, {}, [])
        self.message = why.message
        self.args = (why.message,)


#: What LangChain logs of a handler that raises: its class, the event, and the error.
_LOGGED: Final = 3


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether a record is about anything but a guard that does what it is there for."""
    details = record.args
    if not isinstance(details, tuple) or len(details) != _LOGGED or details[0] != Guard.__name__:
        return True
    return not str(details[2]).startswith((Refused.__name__, BudgetExceeded.__name__))


logging.getLogger("langchain_core.callbacks.manager").addFilter(_is_news)
