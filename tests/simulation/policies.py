"""The launch policies of a seed, drawn apart, so that seeds without any stay the same."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

#: Each kind of end has a rule that differs from every relaunch policy.
RETRY_RULES = (
    {"on_exit_code": "1", "action": "retry", "delay": 7},
    {"on_stop_code": "Spot*", "action": "retry", "counts_attempt": False},
    {"on_reason": "CannotPull*", "on_end": "never_started", "action": "fail"},
)

#: The queue's own launch type is FARGATE; EC2 is never refused and never taken back.
CAPACITY_FALLBACK = ({"launch_type": "EC2"},)


@dataclass(frozen=True, slots=True)
class SimPolicies:
    """What a queue's profile has of docs/policies.md, and what a seed needs so that it matters."""

    start_timeout: float = 0.0
    has_retry_rules: bool = False  # RETRY_RULES
    delays: tuple[float, ...] = ()  # of the requests of an owner, in turn; 0: none
    max_starting: int = 0
    max_per_key: int = 0
    keys: tuple[str, ...] = ()  # of the requests of an owner, in turn; "": none
    launch_rate: float = 0.0  # launches a second
    has_capacity_fallback: bool = False  # CAPACITY_FALLBACK
    stays_pending: float = 0.0  # the probability that a task never starts


def draw_policies(seed: int) -> SimPolicies:
    """Return a seed's."""
    rng = random.Random(f"policies {seed}")
    policies: dict[str, Any] = {"has_retry_rules": rng.random() < 0.15}
    if rng.random() < 0.25:
        policies |= {"start_timeout": rng.choice((30.0, 120.0)), "stays_pending": rng.choice((0.0, 0.15))}
    if rng.random() < 0.2:
        policies["delays"] = tuple(rng.choice((0.0, 5.0, 60.0, 900.0)) * rng.uniform(0.5, 2.0) for _ in range(3))
    if rng.random() < 0.2:
        policies["max_starting"] = rng.choice((1, 2))
    if rng.random() < 0.15:
        policies["launch_rate"] = rng.choice((0.02, 0.5))
    policies["has_capacity_fallback"] = rng.random() < 0.25
    if rng.random() < 0.3:
        policies |= _draw_keys(rng)
    return SimPolicies(**policies)


def draw_warm_policies(seed: int) -> SimPolicies:
    """Return those of a seed with warm pools: keys, which an idle runner must not get around."""
    rng = random.Random(f"warm policies {seed}")
    return SimPolicies(**_draw_keys(rng)) if rng.random() < 0.3 else SimPolicies()


def _draw_keys(rng: random.Random) -> dict[str, Any]:
    return {"max_per_key": rng.choice((0, 1, 1, 2)), "keys": rng.choice((("k",), ("k", "k", ""), ("k", "l")))}
