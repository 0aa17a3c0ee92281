from __future__ import annotations

import logging
import signal

import structlog

# What a server logs inside a test's process would bury what a failing test says.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), cache_logger_on_first_use=False)

# A shell that runs the tests in the background lets them ignore SIGINT, and so every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
