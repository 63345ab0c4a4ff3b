"""Which exporters the OTEL_ variables name, for metrics and for traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from ecs_queue.errors import ConfigError


class Signal(NamedTuple):
    """What OpenTelemetry exports: its name in variables and entry points, and the key that switches it on."""

    name: str
    key: str


METRICS_SIGNAL = Signal("metrics", "otel_metrics")
TRACES_SIGNAL = Signal("traces", "otel_traces")


def load_exporter_classes(signal: Signal, environ: Mapping[str, str]) -> Iterator[Any]:
    """Yield what makes the exporters that OTEL_{METRICS,TRACES}_EXPORTER names, by default OTLP over HTTP.

    Yields nothing for `none`.

    Raises:
        ConfigError: One of them is not installed.
    """
    for name in (environ.get(f"OTEL_{signal.name.upper()}_EXPORTER") or "otlp").split(","):
        if name.strip() not in ("", "none"):
            yield _load(signal, name.strip(), environ)


def _load(signal: Signal, name: str, environ: Mapping[str, str]) -> Any:
    if name == "otlp":
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.name.upper()}_PROTOCOL")
        protocol = own or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for found in entry_points(group=f"opentelemetry_{signal.name}_exporter", name=name):
        return found.load()
    raise ConfigError(
        f"OTEL_{signal.name.upper()}_EXPORTER: expected an exporter that is installed, found {name}; install its "
        f"package, such as opentelemetry-exporter-otlp-proto-grpc, or set {signal.key} = False"
    )
