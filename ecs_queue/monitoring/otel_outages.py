"""Reports the outages of OpenTelemetry's exports: a line at the beginning, one a minute, one at the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from ecs_queue.outage_log import OutageLine, OutageLog

#: The reason of an outage. The SDK's own words are in the log at the level debug.
REJECTED = "the collector did not take them; check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS"

#: Called after each export, with whether it succeeded.
Report = Callable[[bool], None]


def report_outages(log_outage: Callable[[OutageLine], None]) -> Report:
    """Return what is to be called after each export, with whether it succeeded; `log_outage` gets the lines."""
    outages = OutageLog(time.monotonic, settle_seconds=0.0)

    def report(has_succeeded: bool) -> None:
        line = outages.record_success() if has_succeeded else outages.record_failure(REJECTED)
        if line is not None:
            log_outage(line)

    return report
