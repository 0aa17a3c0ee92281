"""Script: an agent without a model, which does what a test has written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.testing.steps import ScriptEnded, check_steps, perform

if TYPE_CHECKING:
    from runstream.runner import Invocation
    from runstream.testing.steps import AnyStep


class Script:
    """An agent function that performs its steps in order, the same in every execution.

    A text is said, a message of the API is reported, an agent function is called. Between any two steps it can be
    paused; when it is resumed it begins anew, with the same ids, and does not use a tool or ask a person again.
    """

    def __init__(self, *steps: AnyStep) -> None:
        """Take the steps. TypeError for what is none."""
        check_steps(steps)
        self.steps = steps

    def __repr__(self) -> str:
        return f"Script({', '.join(map(repr, self.steps))})"

    async def __call__(self, invocation: Invocation) -> None:
        """Perform the steps."""
        try:
            for number, step in enumerate(self.steps, start=1):
                await perform(step, invocation, f"step-{number}")
                await invocation.safe_point()
        except ScriptEnded:
            return
