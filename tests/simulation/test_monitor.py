"""What the monitor of a simulation takes for a violation at its end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ecs_queue.messages.result import build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.simulation.clients import SimOwner, SimRequest
from tests.simulation.faults import SimFaults
from tests.simulation.process import SimulationContext
from tests.simulation.simulation import Simulation, simulated_time

REQUEST = SimRequest({"id": "a"}, 0.0, is_accepted=True, nonce="nonce-01")


@pytest.mark.parametrize(
    ("state", "is_lost", "is_violation"),
    [
        (State.REVOKED, True, False),
        (State.SUCCESS, True, True),
        (None, True, True),
        (State.REVOKED, False, True),
    ],
)
def test_only_the_owner_that_got_the_answer_of_a_stop_may_leave_a_request_that_a_fail_over_lost(
    state: State | None, is_lost: bool, is_violation: bool
) -> None:
    record = Record(id="a", nonce="nonce-01", owner="c0", queue="default", state=state or State.QUEUED)
    owner = SimOwner("c0", [replace(REQUEST)])
    owner.results = [build_result(record)] if state else []
    context = SimulationContext(0, SimFaults(), None)
    with simulated_time(context):
        monitor = Simulation(context).monitor
        monitor.lost_puts = {"a"} if is_lost else set()
        monitor.finish([owner])

    assert monitor.violations == (["a was accepted and never ended"] if is_violation else [])
