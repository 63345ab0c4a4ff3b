"""Opens what OpenTelemetry exports, and reports its outages: a line at the beginning, one a minute, one at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ecs_queue.errors import ConfigError
from ecs_queue.outage_log import OutageLine, OutageLog

if TYPE_CHECKING:
    from ecs_queue.monitoring.otel_traces import SpanExport

#: The reason of an outage. The SDK's own words are in the log at the level debug.
REJECTED = "the collector did not take them; check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS"

Report = Callable[[bool], None]


def report_outages(log_outage: Callable[[OutageLine], None]) -> Report:
    """Return what is to be called after each export, with whether it succeeded; `log_outage` gets the lines."""
    outages = OutageLog(time.monotonic, settle_seconds=0.0)

    def report(has_succeeded: bool) -> None:
        line = outages.record_success() if has_succeeded else outages.record_failure(REJECTED)
        if line is not None:
            log_outage(line)

    return report


def missing_packages_error(key: str) -> ConfigError:
    """Return the error of a configuration key whose packages of OpenTelemetry are not installed."""
    return ConfigError(
        f"{key}: expected OpenTelemetry's SDK and OTLP exporter to be installed, found that they are not; "
        f"pip install 'ecs-queue[otel]', or set {key} = False"
    )


def open_span_export(service_name: str, instance: str, log_outage: Callable[[OutageLine], None]) -> SpanExport:
    """Return what exports spans as the OTEL_ variables say; call its `start`.

    Args:
        service_name: What no variable names.
        instance: The `service.instance.id`; "" for none.
        log_outage: Gets the lines that are worth logging, on the SDK's thread.

    Raises:
        ConfigError: A package is not installed.
    """
    try:
        from ecs_queue.monitoring.otel_traces import SpanExport
    except ImportError:
        raise missing_packages_error("otel_traces") from None
    return SpanExport(service_name, instance, report_outages(log_outage))
