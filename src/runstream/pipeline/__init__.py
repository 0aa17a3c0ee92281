"""Commands as visible lists of steps: the loop that runs them, the context they share, the steps many use."""
