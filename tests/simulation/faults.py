"""Fault probabilities of a simulation. Each seed draws its own, so that rare faults meet."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

#: A fault is absent, usual or frequent in a seed. If every seed had a fault, it would hide others.
_ABSENT_BELOW, _USUAL_BELOW = 0.45, 0.85


@dataclass(frozen=True, slots=True)
class SimFaults:
    """Probabilities: of process faults per step, of others per call or message."""

    kill: float = 0.0
    freeze: float = 0.0
    freeze_around_run_task: float = 0.0  # a freeze around RunTask
    ledger_lost_before_effect: float = 0.0
    ledger_lost_after_effect: float = 0.0
    ledger_late: float = 0.0
    ledger_repeated: float = 0.0  # the client library loses the answer and repeats the call
    barrier_unconfirmed: float = 0.0  # while a fail-over is near: the server does not confirm what was written
    fail_over: float = 0.0  # at a write: the ledger loses what is not durable within the next second
    publish_before: float = 0.0
    publish_after: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    ack_lost: float = 0.0
    run_task_unsent: float = 0.0
    run_task_lost_before_effect: float = 0.0
    run_task_lost_after_effect: float = 0.0
    run_task_late: float = 0.0
    run_task_5xx_before_effect: float = 0.0
    run_task_5xx_after_effect: float = 0.0
    run_task_empty: float = 0.0
    throttle: float = 0.0
    capacity: float = 0.0
    start_refused: float = 0.0  # RunTask returns a failure that consumes an attempt
    permanent: float = 0.0
    no_cluster: float = 0.0
    denied: float = 0.0  # RunTask is not allowed
    wrong_profile: float = 0.0  # a worker starts with a cluster that does not exist, until the faults end
    read_error: float = 0.0
    stale_read: float = 0.0
    invisible: float = 0.0
    lasting_outage: float = 0.0  # the share of the disturbances that freeze all workers for long
    never_starts: float = 0.0
    capacity_stop: float = 0.0  # a task stops before it has started, since there is no capacity
    interrupted: float = 0.0
    exits_1: float = 0.0
    runs_long: float = 0.0
    stays_pending: float = 0.0  # a task never starts, and nothing ends it; drawn with the policies (policies.py)
    clock_goes_back: float = 0.0  # the clock of the ledger's server, by hours; no seed draws it (test_clock_steps.py)


#: The usual probabilities; a frequent fault has four times that.
_USUAL = SimFaults(
    kill=0.004,
    freeze=0.004,
    freeze_around_run_task=0.02,
    ledger_lost_before_effect=0.02,
    ledger_lost_after_effect=0.02,
    ledger_late=0.01,
    ledger_repeated=0.02,
    barrier_unconfirmed=0.0,  # only where a rule needs it: others may act on what is then lost, and no reader can know
    fail_over=0.004,
    publish_before=0.05,
    publish_after=0.05,
    drop=0.1,
    double=0.1,
    delay=0.1,
    ack_lost=0.1,
    run_task_unsent=0.05,
    run_task_lost_before_effect=0.05,
    run_task_lost_after_effect=0.05,
    run_task_late=0.05,
    run_task_5xx_before_effect=0.05,
    run_task_5xx_after_effect=0.05,
    run_task_empty=0.02,
    throttle=0.05,
    capacity=0.08,
    start_refused=0.05,
    permanent=0.01,
    no_cluster=0.01,
    denied=0.01,
    wrong_profile=0.1,
    read_error=0.05,
    stale_read=0.1,
    invisible=0.1,
    lasting_outage=0.1,
    never_starts=0.06,
    capacity_stop=0.06,
    interrupted=0.06,
    exits_1=0.1,
    runs_long=0.04,
)
_FREQUENT_FACTOR = 4.0

#: What describes only the life of tasks stays when the faults end.
_TASK_LIFE_FIELDS = ("stale_read", "stays_pending", "never_starts", "capacity_stop", "interrupted", "exits_1")


def draw_faults(rng: random.Random) -> SimFaults:
    """Draw the probabilities of a seed."""
    probabilities = {}
    for field in fields(SimFaults):
        if field.name in ("clock_goes_back", "stays_pending"):
            continue
        draw = rng.random()
        usual = getattr(_USUAL, field.name)
        probabilities[field.name] = (
            0.0 if draw < _ABSENT_BELOW else usual if draw < _USUAL_BELOW else min(0.8, usual * _FREQUENT_FACTOR)
        )
    return SimFaults(**probabilities)


def without_faults(faults: SimFaults) -> SimFaults:
    """Return the probabilities for the time after the faults."""
    return replace(SimFaults(), **{name: getattr(faults, name) for name in _TASK_LIFE_FIELDS})
