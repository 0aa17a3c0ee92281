"""Logs: every line on standard error, in one format, those of the libraries too."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from runstream.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Write every log line to standard error in the format that is set, those of the libraries too.

    Tracebacks are written without the values of variables, which may be secrets.
    """
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _renderers(settings)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*processors, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*processors, structlog.stdlib.ExtraAdder(["execution_id", "revision"])],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)


def _renderers(settings: Settings) -> list[structlog.typing.Processor]:
    """Make what writes a log entry as one line for machines, or for people."""
    if settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty()):
        colors, traceback = sys.stderr.isatty(), structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=traceback)]
    no_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(no_locals), structlog.processors.JSONRenderer()]
