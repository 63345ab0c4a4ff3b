"""Opens the client's part of traces, if its packages are installed."""

from __future__ import annotations

import logging

from ecs_queue.client.tracing import ClientTracing
from ecs_queue.config import Config
from ecs_queue.monitoring.otel_setup import missing_packages_error
from ecs_queue.outage_log import OutageLine, OutagePhase

logger = logging.getLogger("ecs_queue")


def open_client_tracing(config: Config) -> ClientTracing:
    """Return what exports the client's spans; raises ConfigError when its packages are not installed."""
    if not config.otel_traces:
        return ClientTracing()
    try:
        from ecs_queue.client.otel_tracing import OtelClientTracing
    except ImportError:
        raise missing_packages_error("otel_traces") from None
    return OtelClientTracing(config.namespace, _log_outage)


def _log_outage(line: OutageLine) -> None:
    """Log a line about spans that cannot be exported."""
    level = logging.INFO if line.phase is OutagePhase.ENDED else logging.WARNING
    logger.log(level, "%s", line.describe("the export of spans"))
