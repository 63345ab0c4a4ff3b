"""A worker that measures the processor time of its metrics and spans: `python -m bench.metered_worker worker ...`.

At its end it writes the seconds of each part as JSON to the file that BENCH_METER_FILE names.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecs_queue.__main__ import main
from ecs_queue.monitoring import exposition, monitor, otel_pipeline
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.worker.tracing import OtelTracing

_CALIBRATION_CALLS = 20_000
_spent: defaultdict[str, float] = defaultdict(float)
_calls: Counter[str] = Counter()
_lock = threading.Lock()
_inside = threading.local()


def metered(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, whose processor time on its thread counts for `part`; one inside another counts once."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if getattr(_inside, "is_metered", False):
            return function(*arguments, **named)
        _inside.is_metered = True
        began = time.thread_time()
        try:
            return function(*arguments, **named)
        finally:
            spent = time.thread_time() - began
            _inside.is_metered = False
            with _lock:
                _spent[part] += spent
                _calls[part] += 1

    return call


def _meter_rendering(open_exposition: Callable[..., Callable[[], bytes]]) -> Callable[..., Any]:
    return lambda source: metered("metrics", open_exposition(source))


def _install() -> None:
    for owner, part, names in (
        (WorkerCounters, "metrics", ("record_event", "observe", "increment")),
        (monitor, "metrics", ("read_namespace_state",)),
        (OtelTracing, "spans", ("_record_event", "container_traceparent", "end_request", "end_runner_attempt")),
        (otel_pipeline.WatchedExporter, "spans", ("export",)),
    ):
        for name in names:
            setattr(owner, name, metered(part, getattr(owner, name)))
    exposition.open_exposition = _meter_rendering(exposition.open_exposition)


def _measure_meter() -> float:
    """Return the seconds that each metered call seems to take longer than it does: those of reading the clock."""
    nothing = metered("nothing", lambda: None)
    for _ in range(_CALIBRATION_CALLS):
        nothing()
    return _spent.pop("nothing") / _calls.pop("nothing")


def _write_figures(meter_seconds: float) -> None:
    figures = {part: seconds - _calls[part] * meter_seconds for part, seconds in _spent.items()}
    Path(os.environ["BENCH_METER_FILE"]).write_text(json.dumps(figures))


if __name__ == "__main__":
    atexit.register(_write_figures, _measure_meter())
    _install()
    main()
