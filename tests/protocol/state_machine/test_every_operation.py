"""Rules that every operation keeps on every record; the conformance suite tests whole lives of requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol.operations import InFlightCounts, RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.state_machine import claims, client_operations, launch_reports, task_updates
from ecs_queue.protocol.states import TERMINAL_STATES, TRANSITIONS, State
from tests.protocol.settings import make_settings
from tests.protocol.state_machine.records import CLAIM_REQUEST, NOW, SUBMISSION, records

updates = st.builds(
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
    update, (kind, max_attempts) = draw(updates), draw(refusals)
    launch, request = (
        draw(st.integers(0, 3)),
        msgspec.structs.replace(CLAIM_REQUEST, queue_limit=draw(st.integers(0, 2))),
    )
    in_flight = InFlightCounts(total=draw(st.integers(0, 2)), queue=draw(st.integers(0, 2)), paused=draw(st.booleans()))
    settings, is_holder_alive = (
        make_settings(max_in_flight=draw(st.integers(0, 2)), max_deliveries=2),
        draw(st.booleans()),
    )
    known: list[Operation] = [
        ("put", lambda r: client_operations.put(r, SUBMISSION, NOW)),
        ("claim", lambda r: claims.claim(r, request, NOW, settings, in_flight)),
        ("claim", lambda r: claims.claim(r, None, NOW, settings, in_flight)),
        ("reclaim", lambda r: claims.reclaim(r, CLAIM_REQUEST, NOW, settings, is_holder_alive)),
        ("launched", lambda r: launch_reports.launched(r, "n", launch, "arn:2", NOW)),
        ("call_ambiguous", lambda r: launch_reports.call_ambiguous(r, token, False, "x", NOW, settings)),
        ("no_effect", lambda r: launch_reports.no_effect(r, token, 2.0, "x", NOW, settings)),
        ("refused", lambda r: launch_reports.refused(r, token, kind, 2.0, "no", max_attempts, NOW, settings)),
        ("task_absent", lambda r: launch_reports.task_absent(r, token, 2.0, "search for it", NOW, settings)),
        ("update_task", lambda r: task_updates.update_task(r, update, NOW)),
        ("stop", lambda r: client_operations.stop(r, "ann", launch, NOW)),
        ("adopt", lambda r: client_operations.adopt(r, "p")),
        ("confirm", lambda r: client_operations.confirm(r, "n", "o", NOW)),
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
