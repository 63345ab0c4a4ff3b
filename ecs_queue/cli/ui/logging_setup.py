"""Logging to stderr: one line an event, as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from ecs_queue.cli.ui.output import sanitize

LOG_FORMATS = ("text", "json")


def configure_logging(level: int, log_format: str) -> None:
    """Log to stderr: our own events from `level`, other libraries' from WARNING. `log_format`: text or json."""
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
        """One line, and the traceback if there is one."""
        line = f"{format_record_time(record)} {record.levelname} {sanitize(record.getMessage())}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """`{"at": ..., "level": ..., "event": ..., "message": ..., <the event's own fields>}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        shown: dict[str, Any] = {"at": format_record_time(record), "level": record.levelname.lower()}
        shown["event"] = getattr(record, "event", record.name)
        shown["message"] = record.getMessage()
        for name, value in getattr(record, "fields", {}).items():
            shown.setdefault(name, value)
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown, default=str)


def format_record_time(record: logging.LogRecord) -> str:
    """When it was logged: RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
