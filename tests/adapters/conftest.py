"""The fixtures, as a user takes them."""

from runstream.testing.fixtures import runstream_clock, runstream_server, runstream_settings

__all__ = ["runstream_clock", "runstream_server", "runstream_settings"]
