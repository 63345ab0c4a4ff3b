"""Logs to stderr: one line an event, as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from ecs_queue.cli.ui.durations import format_timestamp_ms
from ecs_queue.cli.ui.output import sanitize

LOG_FORMATS = ("text", "json")


def configure_logging(level: int, log_format: str) -> None:
    """Log to stderr: the events of ecs-queue from `level`, those of other libraries from WARNING.

    Args:
        level: A level of `logging`.
        log_format: "text" or "json".
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("ecs_queue").setLevel(level)
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """`2025-01-31T12:00:00.123Z INFO 7a1e launched as arn:... (launch 1)`; control characters become spaces."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the traceback if there is one."""
        line = f"{format_timestamp_ms(record.created)} {record.levelname} {sanitize(record.getMessage())}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """`{"at": ..., "level": ..., "event": ..., "message": ..., <the event's own fields>}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        shown: dict[str, Any] = {"at": format_timestamp_ms(record.created), "level": record.levelname.lower()}
        shown["event"] = getattr(record, "event", record.name)
        shown["message"] = record.getMessage()
        for name, value in getattr(record, "fields", {}).items():
            shown.setdefault(name, value)
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown, default=str)
