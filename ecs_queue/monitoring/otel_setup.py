"""Opens what OpenTelemetry exports, if its packages are installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ecs_queue.errors import ConfigError
from ecs_queue.monitoring.otel_outages import report_outages
from ecs_queue.outage_log import OutageLine

if TYPE_CHECKING:
    from ecs_queue.monitoring.otel_traces import SpanExport


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
