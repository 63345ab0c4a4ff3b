"""What a worker knows of pauses and limits."""

from __future__ import annotations

import math

from tests.launcher.lab import Lab

LIMITS = {
    "AIRFLOW__AWS_ECS_EXECUTOR__MAX_IN_FLIGHT": "3",
    "AIRFLOW__AWS_ECS_EXECUTOR_GPU__MAX_IN_FLIGHT": "1",
    "AIRFLOW__AWS_ECS_EXECUTOR_FREE__MAX_IN_FLIGHT": "0",
}


class LabOfThree(Lab):
    queues = ("default", "gpu", "free")


def test_without_limits_there_is_room_and_the_ledger_counts_nothing() -> None:
    lab = Lab()
    calls: list[str] = []
    lab.ledger.on_call = lambda operation, when: calls.append(operation)

    lab.worker.gates.step()

    assert lab.worker.gates.room("default") == math.inf
    assert set(calls) == {"paused"}


def test_each_queue_has_the_limit_of_its_profile() -> None:
    lab = LabOfThree(LIMITS)
    lab.launched("a")

    lab.worker.gates.step()

    assert [lab.worker.gates.room(queue) for queue in lab.queues] == [2, 1, math.inf]


def test_the_namespaces_limit_is_every_queues() -> None:
    lab = LabOfThree(LIMITS, max_in_flight=2)
    lab.launched("a")

    lab.worker.gates.step()

    assert [lab.worker.gates.room(queue) for queue in lab.queues] == [1, 1, 1]


def test_room_is_used_up_until_the_ledger_is_asked_again() -> None:
    lab = LabOfThree(LIMITS)
    gates = lab.worker.gates
    gates.step()
    gates.started("gpu")
    assert (gates.may_launch("gpu"), gates.may_launch("default")) == (False, True)

    gates.step()

    assert gates.may_launch("gpu")


def test_a_claim_that_found_it_full_shuts_it_until_the_ledger_is_asked_again() -> None:
    lab = Lab()
    gates = lab.worker.gates
    gates.step()

    gates.refused("default")

    assert gates.room("default") == 0
    gates.step()
    assert gates.room("default") == math.inf


def test_a_pause_is_seen_at_the_next_look_and_so_is_its_end() -> None:
    lab = Lab()
    gates = lab.worker.gates
    lab.memory.pause(["default"])
    gates.step()
    assert gates.room("default") == 0

    lab.memory.resume(["default"])
    gates.step()

    assert gates.may_launch("default")


def test_an_open_circuit_shuts_its_queue() -> None:
    lab = LabOfThree()
    lab.worker.circuits.open("gpu", "no credentials")

    assert [lab.worker.gates.may_launch(queue) for queue in lab.queues] == [True, False, True]


def test_what_waits_is_run_when_its_queue_opens() -> None:
    lab = Lab()
    lab.memory.pause(["default"])
    lab.put()
    lab.worker.gates.step()
    lab.clock.advance(6)
    lab.worker.sweeper.step()
    assert not lab.ecs.calls
    lab.memory.resume(["default"])

    lab.worker.gates.step()
    lab.worker.sweeper.step()

    assert len(lab.ecs.calls) == 1
