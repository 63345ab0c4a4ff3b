"""Confirming, stopping, closing, and the rest of the client."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.errors import LedgerUnavailable, UsageError
from ecs_queue.protocol.operations import ClaimRequest, RefusalKind
from ecs_queue.protocol.states import State
from tests.client.harness import TIMEOUT, ClientHarness
from tests.wait import wait_until


class TestConfirmation:
    def test_what_was_handed_out_is_confirmed_when_the_next_is_asked_for(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        one, other = queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]}])
        harness.finish("a")
        completed = queue.as_completed([one, other], TIMEOUT)
        next(completed)
        assert harness.record("a").undelivered

        harness.finish("b")
        next(completed)

        # The thread that read the result of `b` confirms `a` after that.
        wait_until(lambda: not harness.record("a").undelivered, "the first is confirmed")
        assert list(completed) == []
        assert not harness.record("b").undelivered

    def test_a_close_confirms(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)
        handle.result(TIMEOUT)

        queue.close()

        assert not harness.record(handle.id).undelivered

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_confirmation_that_fails_is_repeated_and_never_raises(
        self, harness: ClientHarness, queue: EcsQueue, when: str
    ) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)
        harness.ledger.fail("confirm", when)

        assert [result.id for result in queue.as_completed([handle], TIMEOUT)] == [handle.id]
        queue.close()

        assert not harness.record(handle.id).undelivered

    def test_a_result_of_another_owner_stays_theirs(self, harness: ClientHarness, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")
        other = harness.make_client()
        harness.finish("a")

        list(other.as_completed([other.handle("a")], TIMEOUT))
        other.close()

        assert harness.record("a").undelivered


class TestStop:
    def test_before_the_launch_a_stop_ends_the_request_at_once_and_publishes_the_result(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        handle = queue.submit(["true"])
        before = time.monotonic()

        assert handle.stop(by="alice") is State.REVOKED

        result = handle.result(TIMEOUT)
        assert (result.state, result.reason) == ("REVOKED", "stopped by alice")
        assert time.monotonic() - before < TIMEOUT

    def test_after_the_launch_it_is_marked(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.memory_ledger.claim(handle.id, ClaimRequest(claim="c", worker="w", args="{}", target="{}"))

        assert handle.stop() is State.LAUNCHING
        assert harness.record(handle.id).stop_requested_by == getpass.getuser()

    def test_what_has_ended_stays_as_it_is(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)

        assert handle.stop() is State.SUCCESS

    def test_an_id_that_is_not_known_yet_is_revoked_when_it_arrives(self, queue: EcsQueue) -> None:
        assert queue.stop("later") is State.REVOKED
        assert queue.submit(["true"], id="later").state() is State.REVOKED

    def test_many_are_stopped_in_order_without_a_broker(self, harness: ClientHarness, queue: EcsQueue) -> None:
        queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]}])
        harness.finish("a")
        harness.broker.is_unavailable = True

        assert [(record.id, record.state) for record in queue.stop_many(["a", "b"])] == [
            ("a", State.SUCCESS),
            ("b", State.REVOKED),
        ]


class TestClose:
    def test_a_used_result_queue_of_its_own_is_deleted(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)
        handle.result(TIMEOUT)

        queue.close()

        assert harness.broker.forgotten_owners == [queue.owner]

    def test_an_unread_or_shared_result_queue_is_not_deleted(self, harness: ClientHarness, queue: EcsQueue) -> None:
        queue.submit(["true"])
        queue.close()
        shared = harness.make_client(owner="airflow")
        handle = shared.submit(["true"])
        harness.finish(handle.id)
        handle.result(TIMEOUT)
        shared.close()

        assert harness.broker.forgotten_owners == []

    def test_close_works_without_a_broker(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)
        handle.result(TIMEOUT)
        harness.broker.is_unavailable = True

        queue.close()

        assert not harness.record(handle.id).undelivered

    @pytest.mark.parametrize(
        "call",
        [
            lambda queue: queue.submit(["true"]),
            lambda queue: queue.submit_many([{"command": ["true"]}]),
            lambda queue: queue.prepare({"command": ["true"]}),
            lambda queue: queue.send([]),
            lambda queue: queue.find_conflicts([]),
            lambda queue: queue.stop("a"),
            lambda queue: queue.status("a"),
            lambda queue: queue.handle("a"),
            lambda queue: queue.as_completed([]),
            lambda queue: queue.check(),
            lambda queue: queue.backlog("default"),
        ],
    )
    def test_a_closed_client_refuses_every_call_and_queues_nothing(
        self, harness: ClientHarness, queue: EcsQueue, call: Callable[[EcsQueue], object]
    ) -> None:
        queue.close()

        with pytest.raises(UsageError, match="the client is closed"):
            call(queue)
        assert harness.memory_ledger.list_records("", 10)[0] == []
        assert harness.broker.published == []

    def test_a_second_close_does_nothing(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)
        handle.result(TIMEOUT)
        queue.close()
        closed: list[str] = []
        harness.broker.close = lambda: closed.append("broker")  # type: ignore[method-assign]

        queue.close()

        assert closed == []
        assert harness.broker.forgotten_owners == [queue.owner]
        assert handle.result(0).succeeded
        with pytest.raises(UsageError, match="the client is closed"):
            queue.submit(["true"])


def test_clients_have_owners_of_their_own(harness: ClientHarness) -> None:
    assert harness.make_client().owner != harness.make_client().owner


def test_the_backlog_is_the_brokers(queue: EcsQueue) -> None:
    queue.submit_many([{"command": ["true"]}] * 3)

    assert queue.backlog("default") == 3


def test_the_check_needs_both_broker_and_ledger(harness: ClientHarness, queue: EcsQueue) -> None:
    queue.check()
    harness.ledger.fail("now", "before")

    with pytest.raises(LedgerUnavailable):
        queue.check()


def test_no_representation_shows_the_command(queue: EcsQueue) -> None:
    handle = queue.submit(["psql", "hunter2"])

    assert isinstance(handle, Handle)
    assert "hunter2" not in repr(handle)
    assert "hunter2" not in repr(handle.prepared_request)


def test_the_result_of_a_failed_request_has_its_reason(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    harness.memory_ledger.claim(handle.id, ClaimRequest(claim="c", worker="w", args="{}", target="{}"))
    harness.memory_ledger.refused(handle.id, "c", RefusalKind.PERMANENT, 2.0, "not authorized", max_attempts=3)

    result = handle.result(TIMEOUT)

    assert (result.state, result.succeeded, result.reason) == ("FAILED", False, "not authorized")
