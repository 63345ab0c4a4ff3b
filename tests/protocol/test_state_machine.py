"""The launch protocol as pure functions: rules that hold for every record, beside the conformance suite's lives."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol import state_machine
from ecs_queue.protocol.operations import ClaimRequest, InFlightCounts, RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, Submission
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER, LIST_ONLY_AFTER
from ecs_queue.protocol.states import TERMINAL_STATES, TRANSITIONS, State
from tests.protocol.settings import DEFAULT_SETTINGS, make_settings

NOW = 1_700_000_000.0
SETTINGS = DEFAULT_SETTINGS
_CLAIM_REQUEST = ClaimRequest(claim="new", worker="w", args="args", target="target")
_SUBMISSION = Submission(
    id="job",
    nonce="n",
    digest="d",
    queue="q",
    owner="o",
    relaunch="never_started",
    request=b"{}",
    accept_until=NOW + 60,
)

_ages = st.sampled_from([0.0, 1.0, 29.0, 30.0, 31.0, 629.0, 630.0, 631.0, 2399.0, 2400.0, 3600.0, 3601.0, 90_000.0])
_times = st.one_of(st.just(0.0), _ages.map(lambda age: NOW - age))

#: Records as no life may ever leave them, too: no rule may depend on their being well-formed.
records = st.builds(
    Record,
    id=st.just("job"),
    nonce=st.just("n"),
    digest=st.sampled_from(["", "d", "e"]),
    owner=st.sampled_from(["", "o"]),
    expires_at=st.sampled_from([0.0, NOW - 1, NOW, NOW + 1]),
    state=st.sampled_from(State),
    launch=st.integers(1, 3),
    attempt=st.integers(1, 3),
    not_before=_times,
    claim=st.sampled_from(["", "held"]),
    lease_until=_times.map(lambda at: at and at + 30),
    first_called_at=_times,
    last_claim_at=_times,
    ambiguous=st.booleans(),
    retired=st.booleans(),
    args=st.sampled_from(["", "frozen"]),
    arn=st.sampled_from(["", "arn:1"]),
    version=st.integers(0, 3),
    stop_requested_by=st.sampled_from(["", "ann", STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT]),
    request=st.just(b"{}"),
)
task_updates = st.builds(
    TaskUpdate,
    id=st.just("job"),
    launch=st.integers(1, 3),
    arn=st.sampled_from(["", "arn:1"]),
    version=st.integers(0, 4),
    last_status=st.just("X"),
    wait=st.just(2.0),
    end_state=st.none() | st.sampled_from(sorted(TERMINAL_STATES)),
    may_relaunch=st.booleans(),
    stopped_by_user=st.booleans(),
    max_attempts=st.integers(1, 3),
)
#: Kind and max_attempts.
refusals = st.tuples(st.sampled_from(RefusalKind), st.integers(1, 3))

Operation = tuple[str, Callable[[Record], Any]]


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    """Any operation on a record, by the name that the transition table gives it."""
    token = draw(st.sampled_from(["", "held", "other"]))
    update, (kind, max_attempts) = draw(task_updates), draw(refusals)
    launch, request = (
        draw(st.integers(0, 3)),
        msgspec.structs.replace(_CLAIM_REQUEST, queue_limit=draw(st.integers(0, 2))),
    )
    in_flight = InFlightCounts(total=draw(st.integers(0, 2)), queue=draw(st.integers(0, 2)), paused=draw(st.booleans()))
    settings, is_holder_alive = (
        make_settings(max_in_flight=draw(st.integers(0, 2)), max_deliveries=2),
        draw(st.booleans()),
    )
    known: list[Operation] = [
        ("put", lambda r: state_machine.put(r, _SUBMISSION, NOW)),
        ("claim", lambda r: state_machine.claim(r, request, NOW, settings, in_flight)),
        ("claim", lambda r: state_machine.claim(r, None, NOW, settings, in_flight)),
        ("reclaim", lambda r: state_machine.reclaim(r, _CLAIM_REQUEST, NOW, settings, is_holder_alive)),
        ("launched", lambda r: state_machine.launched(r, "n", launch, "arn:2", NOW)),
        ("call_ambiguous", lambda r: state_machine.call_ambiguous(r, token, False, "x", NOW, settings)),
        ("no_effect", lambda r: state_machine.no_effect(r, token, 2.0, "x", NOW, settings)),
        ("refused", lambda r: state_machine.refused(r, token, kind, 2.0, "no", max_attempts, NOW, settings)),
        ("task_absent", lambda r: state_machine.task_absent(r, token, 2.0, "search for it", NOW, settings)),
        ("update_task", lambda r: state_machine.update_task(r, update, NOW)),
        ("stop", lambda r: state_machine.stop(r, "ann", launch, NOW)),
        ("adopt", lambda r: state_machine.adopt(r, "p")),
        ("confirm", lambda r: state_machine.confirm(r, "n", "o", NOW)),
    ]
    return draw(st.sampled_from(known))


@given(records, operations())
def test_every_operation_on_any_record_keeps_to_the_transition_table(record: Record, operation: Operation) -> None:
    name, run = operation
    before = record.state
    run(record)
    if record.state is not before:
        assert (before, record.state) in TRANSITIONS.get(name, frozenset())


@given(records.filter(lambda record: record.is_terminal), operations())
def test_nothing_but_delivery_changes_after_the_end(record: Record, operation: Operation) -> None:
    before = msgspec.structs.asdict(record)
    operation[1](record)
    after = msgspec.structs.asdict(record)
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {"owner", "undelivered", "confirmed_at", "nonce", "digest", "queue", "accept_until"}


@given(records, operations())
def test_what_does_not_hold_the_claim_denies_nothing(record: Record, operation: Operation) -> None:
    name, run = operation
    if name not in ("call_ambiguous", "no_effect", "refused", "task_absent"):
        return
    before = msgspec.structs.asdict(record)
    if run(record) is ResultCode.CLAIM_LOST:
        assert msgspec.structs.asdict(record) == before
    else:
        assert (before["state"], before["claim"]) == (State.LAUNCHING, "held")


@given(records.filter(lambda record: record.ambiguous), operations())
def test_an_ambiguous_record_is_never_requeued_by_a_refusal(record: Record, operation: Operation) -> None:
    name, run = operation
    before = record.state
    run(record)
    if name in ("no_effect", "refused"):
        assert record.state is before


@given(records, operations())
def test_the_launch_number_grows_only_into_queued_and_nothing_is_carried_over(
    record: Record, operation: Operation
) -> None:
    launch = record.launch
    operation[1](record)
    if record.launch != launch:
        assert (record.launch, record.state) == (launch + 1, State.QUEUED)
        left = (record.args, record.target, record.arn, record.claim, record.version, record.first_called_at)
        assert left == ("", "", "", "", 0, 0.0)
        assert not record.ambiguous
        assert not record.retired


@given(records, operations())
def test_the_end_scrubs_the_payload(record: Record, operation: Operation) -> None:
    before = record.state
    operation[1](record)
    if record.is_terminal and before not in TERMINAL_STATES:
        assert (record.request, record.args, record.claim, record.not_before) == (b"", "", "", 0.0)
        assert record.undelivered == bool(record.owner)


@given(records)
def test_run_task_is_called_only_for_what_is_neither_stopped_expired_retired_nor_old(record: Record) -> None:
    before = msgspec.structs.replace(record)
    if state_machine.reclaim(record, _CLAIM_REQUEST, NOW, SETTINGS, False) is ResultCode.RUN_TASK:
        assert not before.stop_requested_by
        assert not before.retired
        assert not (before.expires_at and NOW + SETTINGS.startup_allowance >= before.expires_at)
        assert NOW - before.first_called_at < LIST_ONLY_AFTER
        assert record.last_claim_at == NOW
    else:
        assert record.last_claim_at == before.last_claim_at
    assert record.first_called_at == before.first_called_at


@given(st.integers(0, 3), st.integers(0, 2))
def test_a_claim_calls_only_while_fewer_tasks_start_than_may(starting: int, limit: int) -> None:
    record, request = Record(id="job"), msgspec.structs.replace(_CLAIM_REQUEST, max_starting=limit)
    code = state_machine.claim(record, request, NOW, SETTINGS, InFlightCounts(starting=starting))
    is_full = bool(limit) and starting >= limit
    assert code is (ResultCode.LIMIT_REACHED if is_full else ResultCode.RUN_TASK)
    assert (record.max_starting, record.not_before) == ((0, NOW + 1) if is_full else (limit, 0.0))


@given(st.booleans(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
def test_a_claim_calls_only_where_there_is_room_and_no_pause(
    paused: bool, total: int, queue: int, max_in_flight: int, limit: int
) -> None:
    record, request = Record(id="job"), msgspec.structs.replace(_CLAIM_REQUEST, queue_limit=limit)
    settings = make_settings(max_in_flight=max_in_flight)
    code = state_machine.claim(record, request, NOW, settings, InFlightCounts(total=total, queue=queue, paused=paused))
    full = bool(max_in_flight and total >= max_in_flight) or bool(limit and queue >= limit)
    assert code is (ResultCode.PAUSED if paused else ResultCode.LIMIT_REACHED if full else ResultCode.RUN_TASK)
    if code is not ResultCode.RUN_TASK:
        assert (record.state, record.not_before, record.launch) == (State.QUEUED, NOW + 1, 1)


def test_a_request_expires_though_its_queue_is_paused() -> None:
    record = Record(id="job", expires_at=NOW - 1)
    assert state_machine.claim(record, _CLAIM_REQUEST, NOW, SETTINGS, InFlightCounts(paused=True)) is ResultCode.ENDED
    assert record.state is State.EXPIRED


@given(records)
def test_absence_needs_a_list_call_begun_late_enough_and_within_the_hour(record: Record) -> None:
    before = msgspec.structs.replace(record)
    code = state_machine.task_absent(record, "held", 2.0, "search for it", NOW, SETTINGS)
    if code in (ResultCode.REQUEUED, ResultCode.ENDED):
        began = before.lease_until - SETTINGS.lease_seconds
        assert began >= before.last_claim_at + SETTINGS.lease_seconds + SETTINGS.settle_seconds - 0.001
        if NOW - before.first_called_at > ABSENCE_UNPROVABLE_AFTER:
            assert record.state is State.UNKNOWN


@given(st.text(string.ascii_lowercase, min_size=1), st.floats(1e9, 2e9))
def test_a_tombstone_is_revoked_and_waits_for_its_request(by: str, now: float) -> None:
    record = state_machine.build_tombstone("job", by, now, SETTINGS)
    assert (record.state, record.stop_requested_by, record.attempts, record.digest) == (State.REVOKED, by, 0, "")
    assert record.accept_until == now + SETTINGS.accept_seconds


def test_a_record_and_a_submission_show_no_payload() -> None:
    secret = b'{"command": ["hunter2"]}'
    assert "hunter2" not in repr(Record(id="job", request=secret, args="hunter2"))
    assert "hunter2" not in repr(msgspec.structs.replace(_SUBMISSION, request=secret))
