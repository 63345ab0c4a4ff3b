"""A batch that one call submits: a live worker receives each of its messages."""

from __future__ import annotations

from ecs_queue.protocol.states import State
from tests.faults.harness import FaultHarness

#: Far beyond the time that the test waits: no sweep, restored message or expired lease launches a request. Seconds.
_NEVER = 600


def test_every_request_of_a_batch_is_launched_without_the_sweep(redis_url: str) -> None:
    """The worker waits in its drain when the batch is published; it has fewer threads than a batch has requests."""
    quick = {"sweep_after_seconds": _NEVER, "visibility_timeout": _NEVER, "lease_seconds": _NEVER}
    with FaultHarness(redis_url, concurrency=3, run_task_rate=0, **quick) as harness:
        harness.start_worker()
        for batch in range(5):
            ids = [f"batch-{batch}-{number}" for number in range(10)]

            harness.submit(*ids)

            harness.wait_for_state(State.LAUNCHED, *ids)
