"""What the server counts, for those who watch it: a page for Prometheus, and pushes to an OpenTelemetry collector.

The rooms keep plain numbers and know nothing of this one, which reads them when somebody asks.
"""
