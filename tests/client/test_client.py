"""Confirming, stopping, closing, and the rest of the client."""

from __future__ import annotations

import time

import pytest

from ecs_queue.client import EcsQueue, Handle
from ecs_queue.core.protocol import ClaimOffer, Refusal, RefusalKind
from ecs_queue.core.states import State
from ecs_queue.errors import (
    LedgerUnavailable,
)
from tests.client.site import SOON, Site


class TestConfirmation:
    def test_what_was_handed_out_is_confirmed_when_the_next_is_asked_for(self, site: Site, queue: EcsQueue) -> None:
        one, other = queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]}])
        site.end("a")
        completed = queue.as_completed([one, other], SOON)
        next(completed)
        assert site.record("a").undelivered

        site.end("b")
        next(completed)

        assert not site.record("a").undelivered
        assert list(completed) == []
        assert not site.record("b").undelivered

    def test_a_close_confirms(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)

        queue.close()

        assert not site.record(handle.id).undelivered

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_ledger_that_fails_then_is_told_later_and_never_raises(
        self, site: Site, queue: EcsQueue, when: str
    ) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        site.ledger.fail("confirm", when)

        assert [result.id for result in queue.as_completed([handle], SOON)] == [handle.id]
        queue.close()

        assert not site.record(handle.id).undelivered

    def test_a_result_of_another_owner_stays_theirs(self, site: Site, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")
        other = site.client()
        site.end("a")

        list(other.as_completed([other.handle("a")], SOON))
        other.close()

        assert site.record("a").undelivered


class TestStop:
    def test_before_the_launch_it_ends_at_once_and_its_owner_is_told(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        before = time.monotonic()

        assert handle.stop(by="alice") is State.REVOKED

        result = handle.result(SOON)
        assert (result.state, result.reason) == ("REVOKED", "stopped by alice")
        assert time.monotonic() - before < SOON

    def test_after_the_launch_it_is_marked(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.memory.claim(handle.id, ClaimOffer(claim="c", worker="w", args="{}", target="{}"))

        assert handle.stop() is State.LAUNCHING
        assert site.record(handle.id).stop_by == "client"

    def test_what_has_ended_stays_as_it_is(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)

        assert handle.stop() is State.SUCCESS

    def test_an_id_that_is_not_known_yet_is_revoked_when_it_arrives(self, queue: EcsQueue) -> None:
        assert queue.stop("later") is State.REVOKED
        assert queue.submit(["true"], id="later").state() is State.REVOKED

    def test_many_are_stopped_in_order_though_the_broker_is_gone(self, site: Site, queue: EcsQueue) -> None:
        queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]}])
        site.end("a")
        site.broker.fails = True

        assert [(record.id, record.state) for record in queue.stop_many(["a", "b"])] == [
            ("a", State.SUCCESS),
            ("b", State.REVOKED),
        ]


class TestClose:
    def test_a_queue_of_results_of_its_own_is_forgotten_if_it_was_used(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)

        queue.close()

        assert site.broker.forgotten == [queue.owner]

    def test_one_that_was_never_read_or_is_shared_is_not(self, site: Site, queue: EcsQueue) -> None:
        queue.submit(["true"])
        queue.close()
        shared = site.client(owner="airflow")
        handle = shared.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)
        shared.close()

        assert site.broker.forgotten == []

    def test_a_broker_that_is_gone_does_not_hinder_it(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)
        site.broker.fails = True

        queue.close()

        assert not site.record(handle.id).undelivered

    def test_closing_twice_does_no_harm(self, queue: EcsQueue) -> None:
        queue.close()
        queue.close()


def test_clients_have_owners_of_their_own(site: Site) -> None:
    assert site.client().owner != site.client().owner


def test_the_backlog_is_the_brokers(queue: EcsQueue) -> None:
    queue.submit_many([{"command": ["true"]}] * 3)

    assert queue.backlog("default") == 3


def test_the_check_needs_both_broker_and_ledger(site: Site, queue: EcsQueue) -> None:
    queue.check()
    site.ledger.fail("now", "before")

    with pytest.raises(LedgerUnavailable):
        queue.check()


def test_no_representation_shows_the_command(queue: EcsQueue) -> None:
    handle = queue.submit(["psql", "hunter2"])

    assert isinstance(handle, Handle)
    assert "hunter2" not in repr(handle)
    assert "hunter2" not in repr(handle.draft)


def test_a_failed_request_says_so(site: Site, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    site.memory.claim(handle.id, ClaimOffer(claim="c", worker="w", args="{}", target="{}"))
    no = Refusal(kind=RefusalKind.PERMANENT, reason="not authorized", wait=2.0, max_attempts=3)
    site.memory.refused(handle.id, "c", no)

    result = handle.result(SOON)

    assert (result.state, result.succeeded, result.reason) == ("FAILED", False, "not authorized")
