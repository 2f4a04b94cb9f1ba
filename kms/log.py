"""Structured logs on stderr: JSON lines, or on a terminal text for people."""

from __future__ import annotations

import logging.config
import sys
import time
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from kms.config import Settings

READY_LOGGER = "kms.ready"
"""Says that the service is ready, whatever the log level: programs wait for it."""


def configure_logging(settings: Settings) -> None:
    """Send the service's own log and those of its libraries to stderr in one form."""
    global _lines_are_json
    _lines_are_json = _is_json(settings)
    logging.config.dictConfig(logging_config(settings))
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logging_config(settings: Settings) -> dict[str, Any]:
    """For `logging.config.dictConfig`, also in Granian's processes."""
    as_json = _is_json(settings)
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback  # the default one shows local variables
        )
    )
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    if as_json:
        final.insert(1, structlog.processors.format_exc_info)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _shared(),
                "processors": final,
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "structured",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
        "loggers": {
            "alembic": {"level": "WARNING"},
            "_granian": {"level": "WARNING"},
            "granian.access": {"level": "WARNING"},
            "werkzeug": {"level": "WARNING"},
            READY_LOGGER: {"level": "INFO"},
        },
    }


def log_request(**fields: Any) -> None:
    """One line for a request that was answered; in JSON it is written at a tenth of what the library takes for it."""
    if not _lines_are_json:
        structlog.get_logger().info("request", **fields)
    elif logging.getLogger().isEnabledFor(logging.INFO):
        now = time.time()
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"
        line = {**fields, "event": "request", "level": "info", "timestamp": at}
        with suppress(OSError, ValueError):  # nobody reads it, or the disk is full: what was done is done
            sys.stderr.write(msgspec.json.encode(line).decode() + "\n")


_lines_are_json = False


def _is_json(settings: Settings) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())


def _shared() -> list[Any]:
    return [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
