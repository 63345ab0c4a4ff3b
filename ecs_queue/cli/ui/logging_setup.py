"""Logs to stderr: one line an event, as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from ecs_queue.cli.ui.durations import format_timestamp_ms
from ecs_queue.cli.ui.output import sanitize
from ecs_queue.error_text import traceback_text

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
    # An exporter that fails writes many lines and its request's text; an event of ours reports the outage.
    logging.getLogger("opentelemetry").setLevel(level if level <= logging.DEBUG else logging.CRITICAL)
    # It quotes what it cannot read of OTEL_EXPORTER_OTLP_HEADERS, which has tokens.
    logging.getLogger("opentelemetry.util.re").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """`2025-01-31T12:00:00.123Z INFO 7a1e launched as arn:... (launch 1)`; control characters become spaces."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the traceback if there is one, without values of a payload."""
        line = f"{format_timestamp_ms(record.created)} {record.levelname} {sanitize(record.getMessage())}"
        if record.exc_info and record.exc_info[1]:
            line = f"{line}\n{traceback_text(record.exc_info[1])}"
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
        if record.exc_info and record.exc_info[1]:
            shown["traceback"] = traceback_text(record.exc_info[1])
        return json.dumps(shown, default=str)
