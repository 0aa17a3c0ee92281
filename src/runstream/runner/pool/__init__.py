"""The pool of agents that are expensive to build: kept by what they are built of, which no invocation is part of.

Inside: `agent_pool` is the pool, `configuration` what an agent is built of, `places` who has which agent and who waits,
`checks` finds agents that have changed themselves.
"""

from runstream.runner.pool.agent_pool import AgentPool, PoolStats
from runstream.runner.pool.configuration import AgentConfiguration, EnvironmentReference

__all__ = ["AgentConfiguration", "AgentPool", "EnvironmentReference", "PoolStats"]
