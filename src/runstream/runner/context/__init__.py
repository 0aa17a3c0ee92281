"""The context of an invocation: what it is, for whom, and what it may do. `docs/context.md` tells the rules.

Inside: `value` is the context itself, `limits` what a child is given less of, `budget` what may be spent and what was,
`build` makes contexts, `session` those of a session, `ambient` finds the current one, `deadline` ends what is done in
one, `secrets` keeps what is no part of it, `work` is what it acts with.
"""

from runstream.runner.context.ambient import current_context
from runstream.runner.context.budget import Budget
from runstream.runner.context.build import build_context
from runstream.runner.context.limits import Thoroughness
from runstream.runner.context.secrets import SecretsFilter
from runstream.runner.context.session import context_of_session
from runstream.runner.context.value import ExecutionContext
from runstream.runner.errors import BudgetExceeded, ContextInvalid, NoContext, SecretsGone, SecretUnknown

__all__ = [
    "Budget",
    "BudgetExceeded",
    "ContextInvalid",
    "ExecutionContext",
    "NoContext",
    "SecretUnknown",
    "SecretsFilter",
    "SecretsGone",
    "Thoroughness",
    "build_context",
    "context_of_session",
    "current_context",
]
