"""A queue whose capacity is refused or taken back launches on the next variant."""

from __future__ import annotations

import json
from typing import Any

from ecs_queue.protocol.aws_causes import Cause
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.states import State
from tests.fake_ecs import LostResult
from tests.worker.harness import WorkerHarness, failed_result

SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
ON_DEMAND = [{"capacityProvider": "FARGATE", "weight": 1}]
_KEY = "AIRFLOW__AWS_ECS_EXECUTOR__"


def make_harness(*variants: Any, **keys: str) -> WorkerHarness:
    fallback = variants or ({"capacity_provider_strategy": ON_DEMAND},)
    environ = {
        f"{_KEY}LAUNCH_TYPE": "",
        f"{_KEY}CAPACITY_PROVIDER_STRATEGY": json.dumps(SPOT),
        f"{_KEY}CAPACITY_FALLBACK": json.dumps(fallback),
        f"{_KEY}CAPACITY_FALLBACK_AFTER": "2",
        **{f"{_KEY}{name.upper()}": value for name, value in keys.items()},
    }
    return WorkerHarness(environ)


def refuse(harness: WorkerHarness, times: int = 1) -> None:
    for _ in range(times):
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.CAPACITY, cause=Cause.CAPACITY))


def strategies(harness: WorkerHarness) -> list[Any]:
    return [call.arguments.get("capacityProviderStrategy") for call in harness.ecs.run_task_calls]


def test_after_so_many_refusals_the_next_variant_is_used_and_record_and_journal_say_why() -> None:
    harness = make_harness()
    refuse(harness, 2)
    harness.launch()
    harness.advance_in_steps(60)

    assert strategies(harness) == [SPOT, SPOT, ON_DEMAND]
    record = harness.record()
    assert (record.state, record.launch, record.attempt) == (State.LAUNCHED, 3, 1)
    assert (record.variant, record.variant_reason) == (2, "refused on variant 1: ECS returned capacity")
    assert harness.worker.emitted("launch.on_variant")[-1]["variant"] == 2
    assert [event["variant"] for event in harness.worker.emitted("capacity.switched")] == [2]


def test_one_spot_interruption_is_enough_for_all_requests_of_the_queue() -> None:
    harness = make_harness()
    arn = harness.launch(relaunch="interrupted")
    harness.ecs.mark_running(arn)
    harness.advance_in_steps(5)
    harness.ecs.interrupt(arn)
    harness.advance_in_steps(60)
    harness.launch("b")

    assert strategies(harness) == [SPOT, ON_DEMAND, ON_DEMAND]


def test_all_workers_share_the_state() -> None:
    harness = make_harness()
    refuse(harness, 2)
    harness.launch()
    harness.advance_in_steps(60)
    harness.worker = harness.new_worker()
    harness.launch("b")
    assert harness.record("b").variant == 2


def test_after_its_time_the_first_variant_is_tried_again() -> None:
    harness = make_harness(capacity_fallback_seconds="100")
    refuse(harness, 2)
    harness.launch()
    harness.advance_in_steps(30)
    assert harness.record().variant == 2
    harness.advance_in_steps(100)
    harness.launch("b")
    assert (harness.record("b").variant, harness.record("b").variant_reason) == (1, "")


def test_a_call_whose_answer_was_lost_is_repeated_on_its_own_variant() -> None:
    harness = make_harness()
    harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
    harness.launch("a")
    refuse(harness, 2)
    harness.launch("b")
    harness.advance_in_steps(120)

    calls = [call for call in harness.ecs.run_task_calls if call.client_token.startswith("a.")]
    assert len(calls) == 2
    assert calls[0].client_token == calls[1].client_token
    assert calls[0].arguments == calls[1].arguments


def test_a_task_in_another_cluster_and_region_is_followed_and_stopped_there() -> None:
    harness = make_harness({"launch_type": "EC2", "cluster": "spare", "region_name": "us-west-2"})
    refuse(harness, 2)
    harness.launch()
    harness.advance_in_steps(60)
    call = harness.ecs.run_task_calls[-1]
    assert (call.target.cluster, call.target.region) == ("spare", "us-west-2")
    assert json.loads(harness.record().target)["cluster"] == "spare"
    assert call.arguments["cluster"] == "spare"
    harness.memory_ledger.stop(["a"], "alice")
    harness.advance_in_steps(30)
    assert harness.state() is State.REVOKED


def test_a_request_that_chooses_its_capacity_has_no_fallback() -> None:
    harness = make_harness(allowed_overrides="*")
    refuse(harness, 3)
    harness.launch(executor_config={"launchType": "EC2"})
    harness.advance_in_steps(120)
    assert {call.arguments.get("launchType") for call in harness.ecs.run_task_calls} == {"EC2"}
    assert harness.record().variant == 0


def test_calls_on_spot_and_on_demand_take_tokens_of_their_own_buckets() -> None:
    harness = make_harness()
    context = harness.worker.context
    assert context.launch_limiter("default") is context.spot_limiter
    refuse(harness, 2)
    harness.launch()
    harness.advance_in_steps(60)
    assert context.launch_limiter("default") is context.run_task_limiter
    assert context.launches_on_spot


def test_a_queue_without_the_key_asks_nothing_and_has_no_variant() -> None:
    harness = WorkerHarness()
    harness.ledger.fail("report_capacity", "before")
    harness.launch()
    assert harness.record().variant == 0
