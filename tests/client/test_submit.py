"""Submitting."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.errors import (
    ConfigError,
    IdConflict,
    InvalidRequest,
    LedgerUnavailable,
    RequestTooLate,
)
from ecs_queue.ledger import open_ledger
from ecs_queue.messages import envelope
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import build_launch_spec, build_queued_task
from tests.client.harness import TIMEOUT, ClientHarness
from tests.worker.harness import make_config


class TestSubmit:
    def test_the_record_is_in_the_ledger_and_its_message_on_the_broker(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        handle = queue.submit(["echo", "hello"], queue="gpu", priority=7)

        record = harness.record(handle.id)
        assert (record.state, record.queue, record.owner) == (State.QUEUED, "gpu", queue.owner)
        (message,) = harness.broker.published
        assert (message.queue, message.priority) == ("gpu", 7)
        assert message.body == record.request
        assert handle.nonce == record.nonce == envelope.compute_nonce(harness.config.namespace, message.body)

    def test_a_batch_is_written_and_published_at_once(self, harness: ClientHarness, queue: EcsQueue) -> None:
        calls: list[str] = []
        harness.ledger.on_call = lambda operation, when: calls.append(operation) if when == "before" else None

        queue.submit_many([{"command": ["true"]}] * 50)

        assert calls == ["put"]
        assert len(harness.broker.published) == 50

    def test_nothing_is_queued_when_one_of_many_is_bad(self, harness: ClientHarness, queue: EcsQueue) -> None:
        tasks: list[dict[str, Any]] = [{"command": ["true"]}, {"command": []}, {"command": ["true"]}]

        with pytest.raises(InvalidRequest):
            queue.submit_many(tasks)

        assert harness.memory_ledger.list_records("", 10)[0] == []
        assert harness.broker.published == []

    @pytest.mark.parametrize(
        ("task", "named"),
        [
            ({"command": "echo hello"}, "command"),
            ({"command": []}, "command"),
            ({"command": [1]}, "command"),
            ({}, "command"),
            ({"command": ["true"], "colour": "red"}, "colour"),
            ({"command": ["true"], "id": "with space"}, "id"),
            ({"command": ["true"], "priority": 10}, "priority"),
            ({"command": ["true"], "relaunch": "always"}, "relaunch"),
            ({"command": ["true"], "expires_in": 0}, "expires_in"),
            ({"command": ["true"], "executor_config": {"no_such_key": 1}}, "no_such_key"),
            ({"command": ["x" * 9000]}, "8192"),
            ({"command": ["true"], "executor_config": {"environment": [{"name": "A", "value": "\ud800"}]}}, "JSON"),
        ],
    )
    def test_a_bad_request_is_refused_with_the_name_of_what_is_wrong(
        self, harness: ClientHarness, queue: EcsQueue, task: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=named):
            queue.submit_many([task])

        assert harness.broker.published == []

    def test_a_queue_that_cannot_launch_raises_what_to_set(self) -> None:
        config = make_config({"AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": ""})
        queue = EcsQueue(config, open_broker(config), open_ledger(config))

        with pytest.raises(ConfigError, match="cluster"):
            queue.submit(["true"])

    def test_a_broker_url_alone_is_enough_and_what_needs_no_profile_is_checked(self) -> None:
        config = load_config(environ={"AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://"})
        with EcsQueue(config, open_broker(config), open_ledger(config)) as queue:
            overrides = {"cpu": 512, "environment": [{"name": "A", "value": "b"}]}
            handle = queue.submit(["true"], queue="etl", executor_config=overrides)

            assert handle.state() is State.QUEUED
            wrong_values: list[dict[str, Any]] = [{"no_such_key": 1}, {"cpu": []}, {"environment": "A=b"}]
            for wrong in wrong_values:
                with pytest.raises(InvalidRequest):
                    queue.submit(["true"], executor_config=wrong)
            with pytest.raises(InvalidRequest, match="8192"):
                queue.submit(["x" * 9000])

    def test_a_worker_refuses_what_a_producer_without_a_profile_could_not_check(self) -> None:
        worker_config = make_config()
        plain = load_config(environ={"AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://"})
        role = {"taskRoleArn": "arn:aws:iam::123456789012:role/other"}
        task: dict[str, Any] = {"command": ["true"], "executor_config": {"overrides": role}}
        with EcsQueue(plain, open_broker(plain), open_ledger(plain)) as queue:
            prepared = queue.prepare(task)
        queue = EcsQueue(worker_config, open_broker(worker_config), open_ledger(worker_config))
        with queue, pytest.raises(InvalidRequest, match="may not be overridden"):
            queue.prepare(task)
        with pytest.raises(InvalidRequest, match="may not be overridden"):
            build_launch_spec(worker_config.profile("default"), 1, build_queued_task(prepared.request, 1, 0.0))

    def test_a_failing_ledger_raises_and_nothing_is_published(self, harness: ClientHarness, queue: EcsQueue) -> None:
        harness.ledger.fail("put", "before")

        with pytest.raises(LedgerUnavailable):
            queue.submit(["true"])

        assert harness.broker.published == []

    def test_submit_may_be_repeated_when_its_outcome_is_unknown(self, harness: ClientHarness, queue: EcsQueue) -> None:
        harness.ledger.fail("put", "after")
        with pytest.raises(LedgerUnavailable):
            queue.submit(["true"], id="a")
        first = harness.record("a")

        handle = queue.submit(["true"], id="a")

        assert harness.record("a") == first
        assert handle.nonce == first.nonce

    @pytest.mark.parametrize(("delay", "messages"), [(None, 1), (0.001, 1), (2, 1), (60, 0)])
    def test_one_that_may_be_launched_now_or_soon_is_announced(
        self, harness: ClientHarness, queue: EcsQueue, delay: float | None, messages: int
    ) -> None:
        queue.submit(["true"], delay=delay)
        assert queue.backlog("default") == messages

    def test_one_whose_time_is_over_is_announced(self, harness: ClientHarness, queue: EcsQueue) -> None:
        queue.submit(["true"], not_before="2020-01-01T00:00:00Z")
        assert queue.backlog("default") == 1

    def test_a_broker_that_fails_only_delays_it(self, harness: ClientHarness, queue: EcsQueue) -> None:
        harness.broker.is_unavailable = True

        handle = queue.submit(["true"])

        assert harness.record(handle.id).state is State.QUEUED

    def test_requests_without_an_id_get_different_ids(self, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"command": ["true"]}] * 10)

        assert len({handle.id for handle in handles}) == 10


class TestTheSameId:
    def test_the_same_request_is_the_same_and_published_once(self, harness: ClientHarness, queue: EcsQueue) -> None:
        first = queue.submit(["true"], id="a")

        again = harness.make_client().submit(["true"], id="a")

        assert again.nonce == first.nonce
        assert len(harness.broker.published) == 1

    def test_another_request_is_a_conflict(self, harness: ClientHarness, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")

        with pytest.raises(IdConflict, match="a"):
            queue.submit(["false"], id="a")

        assert envelope.decode_request(harness.record("a").request).command == ["true"]

    def test_two_requests_of_one_call_are_a_conflict_before_anything_is_queued(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        with pytest.raises(IdConflict):
            queue.submit_many([{"id": "a", "command": ["one"]}, {"id": "a", "command": ["two"]}])

        assert harness.memory_ledger.get(["a"]) == [None]

    def test_the_same_request_twice_in_one_call_is_one(self, harness: ClientHarness, queue: EcsQueue) -> None:
        one, other = queue.submit_many([{"id": "a", "command": ["one"]}] * 2)

        assert one.nonce == other.nonce
        assert len(harness.broker.published) == 1

    def test_a_conflict_with_an_earlier_request_submits_none_of_the_call(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "c", "command": ["true"]}])
        harness.broker.published.clear()
        tasks = [{"id": name, "command": ["x"]} for name in "abc"] + [{"command": ["y"]}] * 600

        with pytest.raises(IdConflict, match=r"2 of the ids belong to other requests \(a, c\)"):
            queue.submit_many(tasks)

        assert harness.memory_ledger.get(["b"]) == [None]
        assert not harness.broker.published

    def test_a_conflict_at_the_same_moment_does_not_keep_the_rest_of_the_batch_from_being_published(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        def be_first(operation: str, when: str) -> None:
            if (operation, when) == ("get", "after"):
                harness.ledger.on_call = lambda operation, when: None
                harness.make_client().submit(["true"], id="a")
                harness.broker.published.clear()

        harness.ledger.on_call = be_first

        with pytest.raises(IdConflict):
            queue.submit_many([{"id": "a", "command": ["x"]}, {"id": "b", "command": ["y"]}])

        assert [envelope.decode_request(message.body).id for message in harness.broker.published] == ["b"]

    @pytest.mark.parametrize("ahead", [-600.0, 600.0], ids=["behind", "ahead"])
    def test_a_deadline_is_by_the_ledgers_clock_whatever_this_machines_clock_says(
        self, harness: ClientHarness, ahead: float
    ) -> None:
        off = EcsQueue(harness.config, harness.broker, harness.memory_ledger, clock=lambda: time.time() + ahead)

        off.submit(["true"], id="a", expires_in=300.0)

        assert abs(harness.record("a").expires_at - (harness.record("a").created_at + 300.0)) < 30.0

    def test_a_deadline_is_by_this_machines_clock_while_the_ledgers_cannot_be_asked(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        harness.ledger.fail("now", "before")

        queue.submit(["true"], id="a", expires_in=300.0)

        assert abs(harness.record("a").expires_at - (time.time() + 300.0)) < 60.0

    def test_a_clock_that_is_far_behind_raises(self, harness: ClientHarness) -> None:
        late = EcsQueue(harness.config, harness.broker, harness.memory_ledger, clock=lambda: time.time() - 100_000)

        with pytest.raises(RequestTooLate, match="clock"):
            late.submit(["true"])

    def test_a_stop_that_came_first_revokes_it_at_once(self, harness: ClientHarness, queue: EcsQueue) -> None:
        harness.memory_ledger.stop(["a"], "alice")

        result = queue.submit(["true"], id="a").result(TIMEOUT)

        assert result.state == State.REVOKED
        assert harness.broker.published == []
