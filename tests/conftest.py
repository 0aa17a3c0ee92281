from __future__ import annotations

import logging

import structlog

# What a server logs inside a test's process would bury what a failing test says.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), cache_logger_on_first_use=False)
