"""Runstream: the execution service for AI agents.

Clients create executions over gRPC, runners stream what their agents do, user interfaces subscribe
to it live, and nothing that was acknowledged is lost. The rooms of this package import one way:
`v1 <- model <- storage <- {feed, pipeline, dispatch} <- services <- transport <- server`.
"""
