"""Agent executions: one module per command, one for queries, one for streams."""
