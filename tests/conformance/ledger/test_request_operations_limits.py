"""The limits of a queue that a claim checks, and that every end of what holds a slot frees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import PREFIX, SETTINGS, LedgerHarness, claim_request, make_refusal
from tests.conformance.ledger.runner_harness import make_idle, settle, start_launch, warm_claim


def claim(harness: LedgerHarness, record_id: str, limit: int = 1, **fields: Any) -> ResultCode:
    """Claim a request of a queue with this `max_starting`."""
    return harness.ledger.claim(record_id, claim_request(f"claim-{record_id}", max_starting=limit, **fields)).code


def launch(harness: LedgerHarness, record_id: str) -> None:
    record = harness.get_record(record_id)
    assert (
        harness.ledger.launched(record_id, record.nonce, record.launch, f"arn:{record_id}", 1.0).code is ResultCode.OK
    )


def count(harness: LedgerHarness, queue: str = "default") -> int:
    return harness.ledger.count_starting([queue])[queue]


class TestMaxStarting:
    """A task holds a slot from its claim until it runs or ends."""

    def test_a_claim_waits_while_as_many_tasks_start_and_says_why(self, harness: LedgerHarness) -> None:
        for record_id in ("one", "two", "three"):
            harness.make_queued(record_id)
        assert [claim(harness, record_id, 2) for record_id in ("one", "two")] == [ResultCode.RUN_TASK] * 2
        launch(harness, "one")

        assert claim(harness, "three", 2) is ResultCode.LIMIT_REACHED

        record = harness.get_record("three")
        assert (record.state, record.not_before) == (State.QUEUED, harness.clock.now + 1)
        assert record.reason == "max_starting of its queue is reached"
        assert harness.ledger.count_starting(["default", "none"]) == {"default": 2, "none": 0}

    def test_other_queues_have_their_own(self, harness: LedgerHarness) -> None:
        harness.make_queued("one")
        harness.make_queued("two", queue="other")
        assert [claim(harness, record_id) for record_id in ("one", "two")] == [ResultCode.RUN_TASK] * 2
        assert harness.ledger.count_starting(["default", "other"]) == {"default": 1, "other": 1}

    @pytest.mark.parametrize(
        "fields",
        [
            {"last_status": "RUNNING"},
            {"last_status": "DEPROVISIONING"},
            {"last_status": "PENDING", "started_at": 1_000.0},
            {"last_status": "a status of later years"},
            {"end_state": State.FAILED},
            {"end_state": State.REMOVED, "may_relaunch": True, "max_attempts": 3},
        ],
        ids=str,
    )
    def test_a_task_that_runs_or_has_ended_frees_its_slot_once(
        self, harness: LedgerHarness, fields: dict[str, Any]
    ) -> None:
        harness.make_queued("one")
        harness.make_queued("two")
        claim(harness, "one")
        launch(harness, "one")
        harness.update_task(harness.get_record("one"), last_status="PROVISIONING")
        assert count(harness) == 1

        launched = harness.get_record("one")
        harness.update_task(launched, version=2, **fields)
        harness.update_task(launched, version=2, **fields)

        assert count(harness) == 0
        assert claim(harness, "two") is ResultCode.RUN_TASK
        assert count(harness) == 1

    @pytest.mark.parametrize(
        "leave",
        [
            lambda h: h.ledger.no_effect("job", "claim-job", 1.0, "throttled"),
            lambda h: h.ledger.refused("job", "claim-job", *make_refusal(RefusalKind.CAPACITY)),
            lambda h: h.ledger.refused("job", "claim-job", *make_refusal(RefusalKind.PERMANENT)),
            lambda h: (h.stop(), h.ledger.no_effect("job", "claim-job", 1.0, "throttled")),
        ],
        ids=["throttled", "no capacity", "refused for good", "stopped"],
    )
    def test_a_call_that_started_nothing_frees_it(
        self, harness: LedgerHarness, leave: Callable[[LedgerHarness], object]
    ) -> None:
        harness.make_queued()
        claim(harness, "job")
        leave(harness)
        assert count(harness) == 0

    def test_the_slot_of_a_worker_that_died_is_held_until_its_launch_is_resolved(self, harness: LedgerHarness) -> None:
        harness.make_queued()
        claim(harness, "job")
        harness.advance(31.0)
        assert harness.reclaim().code is ResultCode.RUN_TASK
        assert count(harness) == 1
        harness.make_queued("next")
        assert claim(harness, "next") is ResultCode.LIMIT_REACHED
        launch(harness, "job")
        harness.update_task(harness.get_record(), last_status="RUNNING", started_at=harness.clock.now)
        assert count(harness) == 0

    def test_a_call_that_nothing_came_of_frees_it_when_that_is_proved(self, make_harness: MakeHarness) -> None:
        harness = make_harness(msgspec.structs.replace(SETTINGS, settle_seconds=10.0))
        harness.make_queued()
        claim(harness, "job")
        harness.stop()
        harness.advance(41.0)
        assert harness.reclaim().code is ResultCode.LIST_TASKS
        assert harness.ledger.task_absent("job", "claim-2", 1.0).code is ResultCode.ENDED
        assert count(harness) == 0

    def test_launches_of_before_the_limit_hold_no_slot(self, harness: LedgerHarness) -> None:
        harness.make_launching("one")
        harness.make_queued("two")
        assert claim(harness, "two") is ResultCode.RUN_TASK

    def test_an_idle_runner_takes_a_request_whatever_starts(self, harness: LedgerHarness) -> None:
        harness.make_queued("cold")
        make_idle(harness)
        assert claim(harness, "cold") is ResultCode.RUN_TASK
        harness.make_queued()
        assert harness.ledger.claim("job", warm_claim(max_starting=1)).code is ResultCode.ASSIGNED
        assert count(harness) == 1

    def test_without_an_idle_runner_it_starts_one_when_there_is_room(self, harness: LedgerHarness) -> None:
        harness.make_queued("cold")
        claim(harness, "cold")
        harness.make_queued()
        assert harness.ledger.claim("job", warm_claim(max_starting=1)).code is ResultCode.LIMIT_REACHED
        assert harness.ledger.list_runs() == []

    def test_a_runner_that_took_its_command_has_started(self, harness: LedgerHarness) -> None:
        runner = start_launch(harness, claims={"max_starting": 1})
        assert count(harness) == 1
        runner.next()
        settle(harness)
        assert count(harness) == 0
        runner.next(RunEnd(turn=1, exit_code=0))
        settle(harness)
        assert count(harness) == 0

    def test_an_entry_that_a_client_of_another_version_left_is_dropped(self, harness: LedgerHarness) -> None:
        client: Any = harness.client
        if client is None:  # the ledger in memory has no index of its own
            return
        for number in range(3):
            client.zadd(f"{PREFIX}starting:default", {f"gone-{number}": 1.0 + number})
        harness.make_queued("one")
        harness.make_queued("two")
        assert [claim(harness, record_id, 2) for record_id in ("one", "two")] == [ResultCode.RUN_TASK] * 2
        assert count(harness) == 2


@pytest.mark.parametrize(
    ("is_paused", "reason"), [(False, "max_in_flight of its queue is reached"), (True, "its queue is paused")]
)
def test_a_request_that_waits_says_why(harness: LedgerHarness, is_paused: bool, reason: str) -> None:
    harness.make_launching("one")
    harness.make_queued("two")
    if is_paused:
        harness.ledger.pause_queues(["default"])
    harness.ledger.claim("two", claim_request("claim-2", queue_limit=1))
    assert harness.get_record("two").reason == reason
