"""Following executions: wakes, never events; whoever is woken reads the log."""
