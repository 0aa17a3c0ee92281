"""The engine that the suite runs on: RUNSTREAM_ENGINE, as `make test ENGINE=native` sets it, reaches every server."""

from __future__ import annotations

import os

import pytest

#: The setting `engine`; every server of the suite obeys it.
ENGINE = os.environ.get("RUNSTREAM_ENGINE", "auto")
#: What the environment of a server that is tested keeps of the shell's settings.
KEPT = "RUNSTREAM_ENGINE"

needs_tls = pytest.mark.skipif(ENGINE == "native", reason="the native engine has no TLS")
