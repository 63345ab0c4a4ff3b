"""Concurrency keys: the limit and the order of the requests of a key hold, and no slot or turn is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ecs_queue.ledger import MemoryLedger
from ecs_queue.protocol.concurrency_keys import KeyCounts
from ecs_queue.protocol.operations import ONLY_QUEUED, RefusalKind, ResultCode
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.protocol.settings import KEY_CHECK_SECONDS, KEY_RETRY_SECONDS, KEY_TURN_SECONDS
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import (
    DAY,
    HOUR,
    MINUTE,
    PREFIX,
    SETTINGS,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
)
from tests.conformance.ledger.runner_harness import make_idle, settle, start_launch, warm_claim

KEY = "customer 7"
_NUMBERS = itertools.count()  # of claim tokens: each claim is another one


def claim(harness: LedgerHarness, record_id: str, limit: int = 1, token: str = "", **fields: Any) -> ResultCode:
    """Claim a request of a queue with this `max_per_key`."""
    request = claim_request(token or f"claim-{next(_NUMBERS)}", key_limit=limit, **fields)
    return harness.ledger.claim(record_id, request).code


def submit(harness: LedgerHarness, *ids: str, key: str = KEY, **fields: Any) -> None:
    """Submit requests with a key, a second apart."""
    for record_id in ids:
        harness.make_queued(record_id, concurrency_key=key, **fields)
        harness.advance(1.0)


def start(harness: LedgerHarness, *ids: str, limit: int = 1) -> None:
    """Submit and launch requests with a key."""
    submit(harness, *ids)
    for record_id in ids:
        assert claim(harness, record_id, limit) is ResultCode.RUN_TASK
        record = harness.get_record(record_id)
        harness.ledger.launched(record_id, record.nonce, record.launch, f"arn:{record_id}", 1.0)


def park(harness: LedgerHarness, *ids: str, limit: int = 1, **fields: Any) -> None:
    """Submit requests with a key that is full, and let each be claimed in vain."""
    submit(harness, *ids, **fields)
    assert [claim(harness, record_id, limit) for record_id in ids] == [ResultCode.KEY_FULL] * len(ids)


def end(harness: LedgerHarness, record_id: str, **fields: Any) -> ResultCode:
    update = {"version": 9, "end_state": State.SUCCESS, "exit_code": 0, **fields}
    return harness.update_task(harness.get_record(record_id), **update).code


def due(harness: LedgerHarness, queue: str = "default") -> list[str]:
    """Lease what the sweep of a worker finds now."""
    return [record.id for record in harness.ledger.lease_due_retries(queue, 100)]


def counts(harness: LedgerHarness, key: str = KEY, queue: str = "default") -> tuple[int, int]:
    found = harness.ledger.count_of_key(queue, key)
    return found.in_flight, found.waiting


def server(harness: LedgerHarness) -> Any:
    """The server under the ledger. The one in memory has no indexes that could be wrong."""
    if isinstance(harness.ledger, MemoryLedger):
        pytest.skip("the ledger in memory finds holders and those that wait in the records")
    return harness.client


class TestLimit:
    """Never more than the limit, and what is over is only parked."""

    def test_a_request_of_a_full_key_waits_and_says_why(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        submit(harness, "b")
        assert claim(harness, "b") is ResultCode.KEY_FULL
        record = harness.get_record("b")
        assert (record.state, record.launch, record.attempt, record.calls) == (State.QUEUED, 1, 1, 0)
        assert record.not_before == harness.clock.now + KEY_RETRY_SECONDS
        assert record.reason == "max_per_key of its queue is reached for the key customer 7"
        assert counts(harness) == (1, 1)
        assert harness.ledger.count_waiting_for_keys(["default", "none"]) == {"default": 1, "none": 0}
        assert due(harness) == []

    def test_as_many_as_the_limit_are_in_flight_of_each_key_of_each_queue(self, harness: LedgerHarness) -> None:
        start(harness, "a1", "a2", limit=2)
        park(harness, "a3", limit=2)
        submit(harness, "b1", key="customer 8")
        submit(harness, "c1", queue="other")
        harness.make_queued("d1")
        assert [claim(harness, record_id) for record_id in ("b1", "c1", "d1")] == [ResultCode.RUN_TASK] * 3
        assert counts(harness) == (2, 1)
        assert (counts(harness, "customer 8"), counts(harness, queue="other")) == ((1, 0), (1, 0))
        assert counts(harness, "customer") == (0, 0)
        assert harness.ledger.count_of_key("default", "none") == KeyCounts()

    def test_without_a_limit_a_key_limits_nothing_and_is_counted(self, harness: LedgerHarness) -> None:
        start(harness, "a", "b", limit=0)
        assert counts(harness) == (2, 0)
        submit(harness, "c")
        assert claim(harness, "c", limit=2) is ResultCode.KEY_FULL

    def test_a_duplicate_of_a_message_neither_holds_a_second_slot_nor_waits_twice(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        submission = make_submission("b", concurrency_key=KEY)
        for number in range(3):
            stored, claimed = harness.ledger.put_and_claim(submission, claim_request(f"c{number}", key_limit=1))
            assert stored.code is (ResultCode.UNCHANGED if number else ResultCode.CREATED)
            assert claimed.code is (ResultCode.NOT_CLAIMABLE if number else ResultCode.KEY_FULL)
        again = make_submission("a", concurrency_key=KEY)
        assert harness.ledger.put_and_claim(again, claim_request("d", key_limit=1))[1].code is ResultCode.NOT_CLAIMABLE
        assert counts(harness) == (1, 1)

    def test_a_claim_that_the_client_library_repeats_gets_the_same_answer(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        submit(harness, "b")
        assert [claim(harness, "b", token="t") for _ in range(3)] == [ResultCode.KEY_FULL] * 3
        assert counts(harness) == (1, 1)

    def test_a_full_key_comes_after_a_pause_and_a_full_queue(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        submit(harness, "b", "c")
        assert claim(harness, "b", queue_limit=1) is ResultCode.LIMIT_REACHED
        harness.ledger.pause_queues(["default"])
        assert claim(harness, "c") is ResultCode.PAUSED
        assert counts(harness) == (1, 0)

    def test_a_key_may_have_any_characters_that_are_no_control_characters(self, harness: LedgerHarness) -> None:
        for number, key in enumerate(("a", "a ", "a b", "a|b", "(ä]{x}%s", "*")):
            record_id = f"x{number}"
            submit(harness, record_id, f"y{number}", key=key)
            assert [claim(harness, each) for each in (record_id, f"y{number}")] == [
                ResultCode.RUN_TASK,
                ResultCode.KEY_FULL,
            ]
            assert counts(harness, key) == (1, 1)
            harness.stop(record_id)
            harness.ledger.no_effect(record_id, harness.get_record(record_id).claim, 1.0, "throttled")
            assert due(harness) == [f"y{number}"]


class TestRelease:
    """Whatever ends a launch frees its slot once, and wakes one that waits."""

    @pytest.mark.parametrize(
        "leave",
        [
            lambda h: end(h, "a"),
            lambda h: end(h, "a", end_state=State.FAILED, may_relaunch=True, max_attempts=3),
            lambda h: end(h, "a", end_state=State.UNKNOWN),
            lambda h: (h.stop("a"), end(h, "a", end_state=State.FAILED, stopped_by_user=True)),
        ],
        ids=["end", "another attempt", "lost", "stop"],
    )
    def test_the_end_of_a_task(self, harness: LedgerHarness, leave: Callable[[LedgerHarness], object]) -> None:
        start(harness, "a")
        park(harness, "b", "c")
        leave(harness)
        assert counts(harness) == (0, 2)
        assert due(harness) == ["b"]
        assert claim(harness, "b") is ResultCode.RUN_TASK
        assert counts(harness) == (1, 1)

    @pytest.mark.parametrize(
        "leave",
        [
            lambda h, token: h.ledger.no_effect("a", token, 50.0, "throttled"),
            lambda h, token: h.ledger.refused("a", token, *make_refusal(RefusalKind.CAPACITY, 50.0)),
            lambda h, token: h.ledger.refused("a", token, *make_refusal(RefusalKind.PERMANENT)),
            lambda h, token: (h.stop("a"), h.ledger.no_effect("a", token, 1.0, "throttled")),
        ],
        ids=["throttled", "no capacity", "refused for good", "stopped"],
    )
    def test_a_call_that_started_nothing(self, harness: LedgerHarness, leave: Callable[..., object]) -> None:
        submit(harness, "a")
        assert claim(harness, "a", token="t") is ResultCode.RUN_TASK
        park(harness, "b")
        leave(harness, "t")
        assert counts(harness) == (0, 1)
        assert due(harness) == ["b"]

    def test_one_that_is_told_twice_frees_one_slot(self, harness: LedgerHarness) -> None:
        """A late report of a worker that was taken for dead must not let in one request too many."""
        start(harness, "a")
        park(harness, "b", "c")
        launched = harness.get_record("a")
        update: dict[str, Any] = {"version": 9, "end_state": State.SUCCESS, "exit_code": 0}
        assert harness.update_task(launched, **update).code is ResultCode.ENDED
        assert claim(harness, "b") is ResultCode.RUN_TASK
        assert harness.update_task(launched, **update).code is ResultCode.STALE
        harness.stop("a")
        harness.ledger.confirm([("a", "nonce-01")], "airflow")
        assert claim(harness, "c") is ResultCode.NOT_CLAIMABLE
        assert counts(harness) == (1, 1)

    def test_the_slot_of_a_worker_that_died_before_its_call_is_held_until_that_is_resolved(
        self, make_harness: MakeHarness
    ) -> None:
        harness = make_harness(msgspec.structs.replace(SETTINGS, settle_seconds=10.0))
        submit(harness, "job")
        assert claim(harness, "job") is ResultCode.RUN_TASK
        park(harness, "b")
        harness.stop()
        harness.advance(41.0)
        assert harness.reclaim().code is ResultCode.LIST_TASKS
        assert counts(harness) == (1, 1)
        assert harness.ledger.task_absent("job", "claim-2", 1.0).code is ResultCode.ENDED
        assert counts(harness) == (0, 1)
        assert due(harness) == ["b"]

    def test_a_task_that_turns_up_holds_a_slot_whatever_the_limit(self, harness: LedgerHarness) -> None:
        """Facts count: the limit only decides about claims."""
        submit(harness, "a")
        claim(harness, "a", token="t")
        harness.ledger.no_effect("a", "t", 2.0, "throttled")
        start(harness, "b")
        assert harness.ledger.launched("a", "nonce-01", 1, "arn:a", 1.0).code is ResultCode.OK
        assert counts(harness) == (2, 0)
        park(harness, "c")
        end(harness, "a")
        assert due(harness) == ["c"]
        assert claim(harness, "c") is ResultCode.KEY_FULL
        end(harness, "b")
        assert due(harness) == ["c"]
        assert claim(harness, "c") is ResultCode.RUN_TASK

    def test_an_idle_runner_that_gets_a_request_holds_a_slot(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        make_idle(harness)
        submit(harness, "b")
        assert harness.ledger.claim("b", warm_claim(key_limit=1)).code is ResultCode.KEY_FULL
        end(harness, "a")
        assert harness.ledger.claim("b", warm_claim("claim-2", key_limit=1)).code is ResultCode.ASSIGNED
        assert counts(harness) == (1, 0)

    def test_without_an_idle_runner_nothing_is_held(self, harness: LedgerHarness) -> None:
        submit(harness, "job")
        assert harness.ledger.claim("job", warm_claim(key_limit=1, may_call=False)).code is ResultCode.NO_RUNNER
        assert counts(harness) == (0, 0)

    def test_the_end_that_a_runner_reports_frees_it(self, harness: LedgerHarness) -> None:
        runner = start_launch(harness, claims={"key_limit": 1}, concurrency_key=KEY)
        park(harness, "b")
        runner.next()
        settle(harness)
        runner.next(RunEnd(turn=1, exit_code=0))
        assert counts(harness) == (1, 1)
        settle(harness)
        assert counts(harness) == (0, 1)
        assert due(harness) == ["b"]


class TestOrder:
    """Within a key by priority, then age; between keys nothing waits for another."""

    def test_priority_then_age_decides_who_is_next(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "old", "young")
        park(harness, "urgent", priority=9)
        launched = ["a"]
        for expected in ("urgent", "old", "young"):
            end(harness, launched[-1])
            assert due(harness) == [expected]
            assert claim(harness, expected) is ResultCode.RUN_TASK
            assert not harness.get_record(expected).waits_for_key
            harness.ledger.launched(expected, "nonce-01", 1, f"arn:{expected}", 1.0)
            launched.append(expected)

    def test_the_ages_of_one_moment_are_in_one_order(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        names = ["n1", "n2", "n3"]
        for name in reversed(names):
            harness.make_queued(name, concurrency_key=KEY)
        for name in ("n2", "n3", "n1"):
            assert claim(harness, name) is ResultCode.KEY_FULL
        end(harness, "a")
        assert due(harness) == ["n1"]

    def test_a_new_request_does_not_overtake_one_whose_turn_it_is(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b")
        end(harness, "a")
        submit(harness, "new")
        assert claim(harness, "new") is ResultCode.KEY_FULL
        assert claim(harness, "b") is ResultCode.RUN_TASK
        submit(harness, "urgent", priority=1)
        assert counts(harness) == (1, 1)

    def test_an_urgent_new_request_overtakes_those_that_wait(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b")
        end(harness, "a")
        submit(harness, "urgent", priority=1)
        assert claim(harness, "urgent") is ResultCode.RUN_TASK
        assert claim(harness, "b") is ResultCode.KEY_FULL

    def test_a_delayed_request_is_as_old_as_its_time(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        harness.make_queued("delayed", concurrency_key=KEY, delayed_until=harness.clock.now + 100)
        harness.advance(50.0)
        park(harness, "b")
        harness.advance(60.0)
        assert due(harness) == ["delayed"]
        assert claim(harness, "delayed") is ResultCode.KEY_FULL
        end(harness, "a")
        assert due(harness) == ["b"]

    def test_many_that_wait_for_one_key_do_not_hold_up_another(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        names = [f"n{each:03}" for each in range(600)]
        harness.ledger.put([make_submission(name, concurrency_key=KEY) for name in names])
        assert {claim(harness, name) for name in names} == {ResultCode.KEY_FULL}
        assert counts(harness) == (1, 600)
        submit(harness, "other", key="customer 8")
        assert due(harness) == []
        assert claim(harness, "other") is ResultCode.RUN_TASK
        # Those far behind try again later than the first ones: not all of them in one moment.
        harness.advance(KEY_RETRY_SECONDS - 1.0)
        assert len(harness.ledger.lease_due_retries("default", 600)) == 301


class TestWaking:
    """No request waits for a slot that is free, and none is tried over and over for one that is not."""

    def test_the_end_of_one_wakes_one(self, harness: LedgerHarness) -> None:
        start(harness, "a", "b", limit=2)
        park(harness, "c", "d", "e", limit=2)
        end(harness, "a")
        assert due(harness) == ["c"]
        end(harness, "b")
        assert due(harness) == ["d"]
        assert [claim(harness, record_id, 2) for record_id in ("c", "d")] == [ResultCode.RUN_TASK] * 2

    @pytest.mark.parametrize("how", ["stop", "expiry", "purge"])
    def test_a_request_that_ends_when_it_is_its_turn_hands_the_turn_on(self, harness: LedgerHarness, how: str) -> None:
        start(harness, "a")
        submit(harness, "b", expires_at=harness.clock.now + 100)
        assert claim(harness, "b") is ResultCode.KEY_FULL
        park(harness, "c")
        end(harness, "a")
        if how == "expiry":
            harness.advance(100.0)
            assert harness.ledger.claim("b", None).code is ResultCode.ENDED
            assert harness.get_record("b").reason.endswith("it waited because: " + harness.get_record("c").reason)
        else:
            harness.stop("b", launch=ONLY_QUEUED if how == "purge" else 0)
        assert harness.get_record("b").is_terminal
        assert counts(harness) == (0, 1)
        assert due(harness) == ["c"]

    def test_the_end_of_one_that_waits_further_back_wakes_none(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b", "c", "d")
        harness.stop("c")
        assert counts(harness) == (1, 2)
        assert due(harness) == []
        end(harness, "a")
        assert due(harness) == ["b"]

    def test_a_higher_limit_lets_all_that_fit_start_from_the_next_claim_on(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b", "c", "d", "e")
        submit(harness, "f")
        assert claim(harness, "f", limit=4) is ResultCode.KEY_FULL
        assert due(harness) == ["b", "c", "d"]
        assert [claim(harness, each, 4) for each in ("b", "c", "d", "e")] == [
            *[ResultCode.RUN_TASK] * 3,
            ResultCode.NOT_CLAIMABLE,
        ]
        assert counts(harness) == (4, 2)

    def test_a_higher_limit_is_noticed_without_any_claim_or_end(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b", "c")
        harness.advance(KEY_RETRY_SECONDS)
        assert due(harness) == ["b", "c"]
        assert claim(harness, "b", limit=3) is ResultCode.RUN_TASK

    def test_a_request_that_gets_an_idle_runner_wakes_the_next_one_if_a_slot_is_left(
        self, harness: LedgerHarness
    ) -> None:
        start(harness, "a")
        park(harness, "b", "c")
        make_idle(harness)
        end(harness, "a")
        assert due(harness) == ["b"]
        assert harness.ledger.claim("b", warm_claim("claim-2", key_limit=2)).code is ResultCode.ASSIGNED
        assert due(harness) == ["c"]

    def test_without_a_limit_from_now_on_all_start(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b", "c", "d")
        end(harness, "a")
        assert due(harness) == ["b"]
        assert claim(harness, "b", limit=0) is ResultCode.RUN_TASK
        assert due(harness) == ["c", "d"]
        assert [claim(harness, each, 0) for each in ("d", "c")] == [ResultCode.RUN_TASK] * 2
        assert counts(harness) == (4 - 1, 0)

    def test_a_lower_limit_lets_none_start_until_enough_have_ended(self, harness: LedgerHarness) -> None:
        start(harness, "a", "b", "c", limit=3)
        park(harness, "d", "e", limit=3)
        for ended in ("a", "b"):
            end(harness, ended)
            for woken in due(harness):
                assert claim(harness, woken, limit=1) is ResultCode.KEY_FULL
        assert counts(harness) == (1, 2)
        end(harness, "c")
        assert due(harness) == ["d"]
        assert claim(harness, "d", limit=1) is ResultCode.RUN_TASK
        assert counts(harness) == (1, 1)

    def test_a_pause_and_its_end_lose_no_turn(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b")
        harness.ledger.pause_queues(["default"])
        end(harness, "a")
        assert due(harness) == ["b"]
        assert claim(harness, "b") is ResultCode.PAUSED
        assert counts(harness) == (0, 1)
        harness.ledger.resume_queues(["default"])
        harness.advance(1.0)
        assert due(harness) == ["b"]
        assert claim(harness, "b") is ResultCode.RUN_TASK

    def test_one_whose_turn_no_worker_takes_lets_the_others_pass(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "unreadable", "b")
        end(harness, "a")
        submit(harness, "c")
        assert claim(harness, "c") is ResultCode.KEY_FULL
        harness.advance(KEY_TURN_SECONDS)
        submit(harness, "d")
        assert claim(harness, "d") is ResultCode.KEY_FULL  # "b" and "c" are before it
        assert due(harness) == ["unreadable", "b"]
        assert claim(harness, "b") is ResultCode.RUN_TASK
        assert claim(harness, "unreadable") is ResultCode.KEY_FULL
        end(harness, "a")
        assert counts(harness) == (1, 3)

    def test_a_worker_that_died_with_a_request_whose_turn_it_was_delays_it_by_its_lease(
        self, harness: LedgerHarness
    ) -> None:
        start(harness, "a")
        park(harness, "b")
        end(harness, "a")
        assert due(harness) == ["b"]
        assert due(harness) == []
        harness.advance(SETTINGS.lease_seconds)
        assert due(harness) == ["b"]
        assert claim(harness, "b") is ResultCode.RUN_TASK

    @pytest.mark.parametrize("step", [2.0, MINUTE, HOUR, DAY])
    def test_a_clock_that_goes_back_lets_none_wait_longer(self, harness: LedgerHarness, step: float) -> None:
        start(harness, "a")
        park(harness, "b", "c")
        end(harness, "a")
        harness.ledger.lease_due(10)
        harness.advance(-step)
        harness.ledger.lease_due(10)
        harness.advance(SETTINGS.lease_seconds)
        assert due(harness) == ["b"]
        assert claim(harness, "b") is ResultCode.RUN_TASK
        harness.advance(KEY_RETRY_SECONDS)
        assert due(harness) == ["c"]
        assert claim(harness, "c") is ResultCode.KEY_FULL

    def test_a_clock_that_jumps_ahead_only_lets_them_try_early(self, harness: LedgerHarness) -> None:
        start(harness, "a")
        park(harness, "b")
        harness.advance(DAY)
        assert due(harness) == ["b"]
        assert claim(harness, "b") is ResultCode.KEY_FULL
        end(harness, "a")
        assert due(harness) == ["b"]


class TestBrokenIndexes:
    """What a client of another version, a person or a fault left in an index holds no slot and no turn."""

    def test_a_slot_without_its_request_is_free_after_a_minute(self, harness: LedgerHarness) -> None:
        client = server(harness)
        client.zadd(f"{PREFIX}key_holders:default|{KEY}", {f"gone-{each}": harness.clock.now for each in range(3)})
        submit(harness, "a")
        assert claim(harness, "a", limit=3) is ResultCode.KEY_FULL
        harness.advance(KEY_RETRY_SECONDS)
        assert due(harness) == ["a"]
        assert claim(harness, "a", limit=3) is ResultCode.RUN_TASK
        assert counts(harness) == (1, 0)

    def test_each_slot_is_checked_in_turn_however_many_there_are(self, harness: LedgerHarness) -> None:
        client = server(harness)
        names = [f"r{each:02}" for each in range(25)]
        start(harness, *names, limit=25)
        client.zadd(f"{PREFIX}key_holders:default|{KEY}", {"gone": harness.clock.now + 1})
        submit(harness, "a")
        harness.advance(2 * KEY_CHECK_SECONDS)
        found: list[ResultCode] = []
        for _ in range(4):
            found.append(claim(harness, "a", limit=26))
            harness.advance(KEY_RETRY_SECONDS)
        assert found == [ResultCode.KEY_FULL, ResultCode.KEY_FULL, ResultCode.RUN_TASK, ResultCode.NOT_CLAIMABLE]

    def test_entries_of_requests_that_have_ended_are_dropped_and_the_next_one_is_woken(
        self, harness: LedgerHarness
    ) -> None:
        client = server(harness)
        start(harness, "a")
        park(harness, *(f"g{each:02}" for each in range(30)), "b")
        for each in range(30):  # as a client of the version before does that stops them
            client.hset(f"{PREFIX}r:g{each:02}", "state", "REVOKED")
            client.zrem(f"{PREFIX}retry:default", f"g{each:02}")
        client.delete(f"{PREFIX}r:g00")
        end(harness, "a")
        assert due(harness) == ["b"]
        assert claim(harness, "b") is ResultCode.RUN_TASK
        assert counts(harness) == (1, 0)

    def test_a_phantom_at_the_head_does_not_hold_up_a_claim(self, harness: LedgerHarness) -> None:
        client = server(harness)
        client.zadd(f"{PREFIX}key_waiting:default", {f"{KEY}\n0 00000000000001.000 gone": 0})
        client.set(f"{PREFIX}r:wrong", "no hash")
        client.zadd(f"{PREFIX}key_waiting:default", {f"{KEY}\n0 00000000000001.000 wrong": 0})
        submit(harness, "a")
        assert claim(harness, "a") is ResultCode.RUN_TASK
        assert counts(harness) == (1, 0)

    @pytest.mark.parametrize("index", [f"key_holders:default|{KEY}", "key_waiting:default"])
    def test_an_index_that_is_lost_is_made_again(self, harness: LedgerHarness, index: str) -> None:
        client = server(harness)
        start(harness, "a")
        park(harness, "b", "c")
        client.delete(PREFIX + index)
        client.set(PREFIX + index, "no sorted set")
        submit(harness, "d")
        claim(harness, "d")
        harness.advance(MINUTE)
        for _ in range(3):
            harness.ledger.check_broken(10)
        assert counts(harness)[0] <= 2
        assert {item.name for item in harness.ledger.list_broken()} == {index}
        if index.startswith("key_waiting"):
            assert counts(harness) == (1, 3)
            end(harness, "a")
            assert due(harness) == ["b"]

    def test_a_broken_record_frees_its_slot_and_takes_it_again_when_it_is_mended(self, harness: LedgerHarness) -> None:
        client = server(harness)
        start(harness, "a")
        park(harness, "b")
        client.hset(f"{PREFIX}r:a", "launched_at", "no number")
        assert harness.stop("a").code is ResultCode.BROKEN
        assert counts(harness) == (0, 1)
        assert due(harness) == ["b"]
        client.hdel(f"{PREFIX}r:a", "launched_at")
        harness.advance(MINUTE)
        assert harness.ledger.check_broken(10) == 1
        assert counts(harness) == (1, 1)
        assert claim(harness, "b") is ResultCode.KEY_FULL

    def test_a_broken_request_that_waits_leaves_its_place(self, harness: LedgerHarness) -> None:
        client = server(harness)
        start(harness, "a")
        park(harness, "b", "c")
        client.hset(f"{PREFIX}r:b", "expires_at", "no number")
        assert harness.stop("b").code is ResultCode.BROKEN
        assert counts(harness) == (1, 1)
        end(harness, "a")
        assert due(harness) == ["c"]
