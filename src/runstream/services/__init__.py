"""The services: one module per resource. Each command is a visible list of steps; queries are direct."""
