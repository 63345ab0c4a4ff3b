"""Every operation run eleven times: redis-py repeats a script whose answer was lost, up to ten times by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from ecs_queue.ledger import Ledger
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.ledger.contracts import read_contracts
from ecs_queue.protocol.capacity_fallback import CapacityEvent, CapacityState
from ecs_queue.protocol.event_health import EventFact, EventFactKind
from ecs_queue.protocol.operations import OperationResult, RefusalKind, ResultCode, SettleRequest
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.protocol.settings import LIST_DELIVERIES_FACTOR
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import (
    ABSENCE_PROVABLE_AFTER,
    SETTINGS,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_report,
    make_submission,
    task_update,
)
from tests.conformance.ledger.runner_harness import make_idle, start_launch, start_runner, warm_claim
from tests.fake_clock import START
from tests.worker_info import make_worker_info

_RUNS = 11
_SETTINGS = msgspec.structs.replace(SETTINGS, max_deliveries=2)
_WORKER = make_worker_info("worker-1", started_at=START)
_DEAD = DeadLetter(key="dead", queue="default", reason="no message", body=b"\xff")
#: Operations that only read, or whose answer is about the server.
_READ = {
    *(
        "read_runs",
        "list_runs",
        "may_stop",
        "find_oldest_queued",
        "count_dead_letters",
        "total_dead_letters",
        "count_delayed",
        "count_starting",
        "count_of_key",
        "count_waiting_for_keys",
    ),
    *("get", "get_with_payload", "find_id_by_arn", "list_undelivered", "list_records", "count_by_state"),
    *(
        "list_paused_queues",
        "get_event_health",
        "list_dead_letters",
        "list_broken",
        "get_dead_letters",
        "list_workers",
        "now",
        "check_server",
        "close",
    ),
}
#: Operations of which each run takes more. What an unknown answer took is given back by time: a lease ends, a bucket
#: fills, and a pass over an index goes on.
_TAKES_MORE = {
    *("lease_due", "lease_due_retries", "lease_unclaimed", "lease_expired", "take_tokens", "poll_soon", "prune"),
    *("check_broken", "drop_broken", "pop_changed_runs"),
}


class Case(NamedTuple):
    """A `call`, the record that it starts from, and its answers: to the first run and, where it differs, to others."""

    operation: str
    prepare: Callable[[LedgerHarness], Any]
    call: Callable[[Ledger], Any]
    first: Any
    later: Any = None


def _expire(harness: LedgerHarness) -> None:
    harness.make_queued(expires_at=START + 10)
    harness.advance(10)


def _queue_in_pause(harness: LedgerHarness) -> None:
    harness.make_queued()
    harness.ledger.pause_queues(["default"])


def _fill_queue(harness: LedgerHarness) -> None:
    harness.make_launched("other")
    harness.make_queued()


def _fill_key(harness: LedgerHarness) -> None:
    harness.make_launched("other", concurrency_key="k")
    harness.make_queued(concurrency_key="k")


def _abandon(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(SETTINGS.lease_seconds)


def _abandon_stopped(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    harness.advance(SETTINGS.lease_seconds)


def _abandon_poison(harness: LedgerHarness) -> None:
    """Kill its workers until not even listing its tasks is tried again."""
    harness.make_launching("job", "claim-0")
    for number in range(100, 150):
        harness.advance(SETTINGS.lease_seconds)
        if harness.get_record().abandoned_claims > LIST_DELIVERIES_FACTOR * _SETTINGS.max_deliveries:
            return
        harness.reclaim(f"claim-{number}")


def _make_ambiguous(harness: LedgerHarness) -> None:
    _abandon(harness)
    harness.reclaim("claim-1")


def _make_stopped(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()


def _list_early(harness: LedgerHarness) -> None:
    _abandon_stopped(harness)
    harness.reclaim("claim-1")


def _list_late(harness: LedgerHarness, *, stopped: bool = False) -> None:
    harness.make_launching("job", "claim-0")
    if stopped:
        harness.stop()
    harness.advance(ABSENCE_PROVABLE_AFTER if stopped else 2400.0)
    harness.reclaim("claim-1")


def _make_idle_and_queue(harness: LedgerHarness) -> None:
    make_idle(harness)
    harness.make_queued()


def _abandon_runner(harness: LedgerHarness) -> None:
    start_launch(harness)
    harness.advance(2400.0)


_END = RunEnd(turn=1, exit_code=0)


def _end_command(harness: LedgerHarness) -> None:
    start_runner(harness).next(_END)


def _settle(ledger: Ledger) -> Any:
    return ledger.settle([SettleRequest(id="job", end=_END, is_verified=True)])


_REFUSED, _START_FAILURE = RefusalKind.PERMANENT, make_refusal(RefusalKind.START_FAILURE)
_CASES = [
    Case("put", lambda h: None, lambda x: x.put([make_submission()]), ["CREATED"], ["UNCHANGED"]),
    Case("put", lambda h: h.stop(), lambda x: x.put([make_submission()]), ["ENDED"], ["UNCHANGED"]),
    Case(
        "put_and_claim",
        lambda h: None,
        lambda x: x.put_and_claim(make_submission(), claim_request()),
        ["CREATED", "RUN_TASK"],
        ["UNCHANGED", "RUN_TASK"],
    ),
    Case(
        "put_and_claim",
        _queue_in_pause,
        lambda x: x.put_and_claim(make_submission(), claim_request()),
        ["UNCHANGED", "PAUSED"],
    ),
    Case("claim", LedgerHarness.make_queued, lambda x: x.claim("job", claim_request()), ["RUN_TASK"]),
    Case("claim", _expire, lambda x: x.claim("job", claim_request()), ["ENDED"]),
    Case("claim", _expire, lambda x: x.claim("job", None), ["ENDED"], ["NOT_CLAIMABLE"]),
    Case("claim", _queue_in_pause, lambda x: x.claim("job", claim_request()), ["PAUSED"]),
    Case("claim", _fill_queue, lambda x: x.claim("job", claim_request(queue_limit=1)), ["LIMIT_REACHED"]),
    Case("claim", _fill_key, lambda x: x.claim("job", claim_request(key_limit=1)), ["KEY_FULL"]),
    Case("reclaim", _abandon, lambda x: x.reclaim("job", claim_request("claim-2")), ["RUN_TASK"]),
    Case("reclaim", _abandon_stopped, lambda x: x.reclaim("job", claim_request("claim-2")), ["LIST_TASKS"]),
    Case("reclaim", _abandon_poison, lambda x: x.reclaim("job", claim_request("claim-2")), ["ENDED"]),
    Case(
        "launched",
        LedgerHarness.make_launching,
        lambda x: x.launched("job", "nonce-01", 1, "arn:1", 1.0),
        ["OK"],
        ["UNCHANGED"],
    ),
    Case(
        "call_ambiguous", LedgerHarness.make_launching, lambda x: x.call_ambiguous("job", "claim-1", 1.0, "?"), ["OK"]
    ),
    Case("no_effect", LedgerHarness.make_launching, lambda x: x.no_effect("job", "claim-1", 1.0, "no"), ["OK"]),
    Case("no_effect", _make_ambiguous, lambda x: x.no_effect("job", "claim-1", 1.0, "no"), ["OK"]),
    Case("no_effect", _make_stopped, lambda x: x.no_effect("job", "claim-1", 1.0, "no"), ["ENDED"]),
    Case(
        "refused",
        LedgerHarness.make_launching,
        lambda x: x.refused("job", "claim-1", *make_refusal(_REFUSED)),
        ["ENDED"],
    ),
    Case("refused", LedgerHarness.make_launching, lambda x: x.refused("job", "claim-1", *_START_FAILURE), ["REQUEUED"]),
    Case("refused", _make_ambiguous, lambda x: x.refused("job", "claim-1", *_START_FAILURE), ["OK"]),
    Case("task_absent", _list_early, lambda x: x.task_absent("job", "claim-1", 1.0), ["TOO_EARLY"]),
    Case("task_absent", _list_late, lambda x: x.task_absent("job", "claim-1", 1.0), ["REQUEUED"]),
    Case(
        "task_absent",
        lambda h: _list_late(h, stopped=True),
        lambda x: x.task_absent("job", "claim-1", 1.0),
        ["ENDED"],
    ),
    Case(
        "update_tasks",
        LedgerHarness.make_launched,
        lambda x: x.update_tasks([task_update(_get(x), end_state=State.SUCCESS)]),
        ["ENDED"],
        ["STALE"],
    ),
    Case("stop", LedgerHarness.make_launched, lambda x: x.stop(["job"], "ann"), ["STOP_REQUESTED"]),
    Case("stop", LedgerHarness.make_queued, lambda x: x.stop(["job"], "ann"), ["ENDED"], ["UNCHANGED"]),
    Case("stop", lambda h: None, lambda x: x.stop(["job"], "ann"), ["ENDED"], ["UNCHANGED"]),
    Case("claim", _make_idle_and_queue, lambda x: x.claim("job", warm_claim()), ["ASSIGNED"]),
    Case("claim", LedgerHarness.make_queued, lambda x: x.claim("job", warm_claim(may_call=False)), ["NO_RUNNER"]),
    Case("reclaim", _abandon_runner, lambda x: x.reclaim("job", claim_request("claim-2")), ["REQUEUED"]),
    Case("settle", start_runner, lambda x: x.settle([SettleRequest(id="job")]), ["OK"]),
    Case("settle", _end_command, _settle, ["ENDED"], ["STALE"]),
    Case(
        "update_runner_tasks",
        start_runner,
        lambda x: x.update_runner_tasks([task_update(_get(x), end_state=State.FAILED)]),
        ["ENDED"],
        ["STALE"],
    ),
    Case("put_back", start_launch, lambda x: x.put_back(["job"]), ["REQUEUED"], ["STALE"]),
    Case("close_silent", lambda h: None, lambda x: x.close_silent(0, 10), ([], -1)),
    Case("forget_runner", lambda h: None, lambda x: x.forget_runner("runner"), None),
    Case("drain_runs", make_idle, lambda x: x.drain_runs([run.name for run in x.list_runs()]), 1, 0),
    Case("adopt", LedgerHarness.make_launched, lambda x: x.adopt(["job"], "bob"), ["OK"]),
    Case("adopt", LedgerHarness.make_ended, lambda x: x.adopt(["job"], "bob"), ["ENDED"]),
    Case("confirm", LedgerHarness.make_ended, lambda x: x.confirm([("job", "nonce-01")], "airflow"), ["OK"]),
    Case("reschedule_poll", LedgerHarness.make_launched, lambda x: x.reschedule_poll({"job": 5.0}), None),
    Case("begin_delivery", lambda h: None, lambda x: x.begin_delivery("nonce-01", "delivery-1"), 1),
    Case("end_delivery", lambda h: h.ledger.begin_delivery("n", "d"), lambda x: x.end_delivery("n"), None),
    Case("record_throttle", lambda h: None, lambda x: x.record_throttle("run"), 0.75, 0.0),
    Case(
        "report_capacity",
        lambda h: None,
        lambda x: x.report_capacity("default", make_report(event=CapacityEvent.REFUSED)),
        CapacityState(refusals=1, reported="launch"),
    ),
    Case("pause_queues", lambda h: None, lambda x: x.pause_queues(["default"]), None),
    Case("resume_queues", _queue_in_pause, lambda x: x.resume_queues(["default"]), None),
    Case(
        "record_event_facts",
        lambda h: None,
        lambda x: x.record_event_facts([EventFact(source="s", kind=next(iter(EventFactKind)), at=5.0)]),
        None,
    ),
    Case("add_dead_letter", lambda h: None, lambda x: x.add_dead_letter(_DEAD), None),
    Case(
        "delete_dead_letters",
        lambda h: h.ledger.add_dead_letter(_DEAD),
        lambda x: x.delete_dead_letters(["dead"]),
        [True],
        [False],
    ),
    Case("heartbeat", lambda h: None, lambda x: x.heartbeat(_WORKER, 60.0), None),
]


def _get(ledger: Ledger) -> Any:
    found = ledger.get_with_payload(["job"])[0]
    assert found is not None
    # What the caller saw before its first run, not what that run has written.
    return msgspec.structs.replace(found, version=0)


def _codes(answer: Any) -> Any:
    """Return the names of the result codes of an answer, or the answer itself if it has none."""
    results = [answer] if isinstance(answer, OperationResult) else answer
    if isinstance(results, list | tuple) and all(isinstance(result, OperationResult) for result in results):
        return [result.code.name for result in results]
    return answer


def _contents(ledger: Ledger) -> Any:
    """Return everything that a repeated run could have changed."""
    dead = [letter.key for letter in ledger.list_dead_letters(10)]
    state = (
        ledger.get_with_payload(["job"]),
        ledger.count_by_state(),
        ledger.list_paused_queues(),
        ledger.get_event_health(),
    )
    return *state, dead, ledger.list_workers(), ledger.list_undelivered("airflow", 10)


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case.operation}-{case.first}")
def test_eleven_runs_give_the_same_answer_and_leave_the_same_as_one(make_harness: MakeHarness, case: Case) -> None:
    harness = make_harness(_SETTINGS)
    case.prepare(harness)

    first = case.call(harness.ledger)
    after_first = _contents(harness.ledger)
    later = [case.call(harness.ledger) for _ in range(_RUNS - 1)]

    assert _codes(first) == case.first
    assert [_codes(answer) for answer in later] == [case.first if case.later is None else case.later] * len(later)
    if case.later is None:
        assert later == [first] * len(later)
    assert _contents(harness.ledger) == after_first


def test_every_operation_is_a_case_or_named_above() -> None:
    operations = set(read_contracts(*Ledger.__bases__))
    cases = {case.operation for case in _CASES}
    assert operations - cases == _READ | _TAKES_MORE


def test_every_result_under_a_claim_token_is_repeated() -> None:
    """All of these take a token, so none may be answered differently when it runs again."""
    contracts = read_contracts(*Ledger.__bases__)
    for operation in ("claim", "reclaim", "call_ambiguous", "no_effect", "refused", "task_absent"):
        known = {code for case in _CASES if case.operation == operation and case.later is None for code in case.first}
        unwritten = {ResultCode.NOT_CLAIMABLE, ResultCode.NOT_FOUND, ResultCode.CLAIM_LOST, ResultCode.BROKEN}
        assert {ResultCode[name] for name in known} == contracts[operation].results - unwritten


def test_the_answer_is_forgotten_once_the_launch_has_moved_on(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.call_ambiguous("job", "claim-1", 0.0, "?")
    assert harness.reclaim("claim-2").code is ResultCode.RUN_TASK
    assert harness.ledger.call_ambiguous("job", "claim-1", 0.0, "?").code is ResultCode.CLAIM_LOST
    assert harness.ledger.claim("job", claim_request("claim-1")).code is ResultCode.NOT_CLAIMABLE
    harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0)
    assert harness.reclaim("claim-2").code is ResultCode.NOT_CLAIMABLE
    assert harness.get_record().last_answer == ""


def test_a_repeated_claim_leaves_the_schedule_alone(harness: LedgerHarness) -> None:
    """A poll that has been put off since is not made sooner by a repeated run."""
    harness.make_launching()
    harness.advance(SETTINGS.lease_seconds)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    assert harness.ledger.claim("job", claim_request()).code is ResultCode.RUN_TASK
    assert harness.ledger.lease_due(10) == []
