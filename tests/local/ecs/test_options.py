"""Invalid options are refused when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.errors import ConfigError
from ecs_queue.local.ecs import FaultOptions, LocalEcsOptions, Quota


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (LocalEcsOptions, "port", -1),
        (LocalEcsOptions, "port", 65536),
        (LocalEcsOptions, "latency_seconds", -0.1),
        (LocalEcsOptions, "retention_seconds", float("nan")),
        (LocalEcsOptions, "stop_timeout_seconds", float("inf")),
        (LocalEcsOptions, "provision_seconds", (-1.0, 1.0)),
        (LocalEcsOptions, "provision_seconds", (2.0, 1.0)),
        (LocalEcsOptions, "clusters", ("a b",)),
        (LocalEcsOptions, "container_name", ""),
        (FaultOptions, "throttle", 1.1),
        (FaultOptions, "capacity", -0.1),
        (FaultOptions, "start_failure", float("nan")),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(kind: Any, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected .*, found"):
        kind(**{option: value})


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5), (float("nan"), 1)])
def test_a_quota_lets_something_through(rate: float, burst: float) -> None:
    with pytest.raises(ConfigError, match=r"quota \w+: expected"):
        Quota(rate=rate, burst=burst)
