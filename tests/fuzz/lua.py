"""The target `lua`: the ledger's script on a real server, with unchecked stored data and arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis.exceptions
from hypothesis import strategies as st

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger.entries import DeadLetter
from ecs_queue.ledger.redis import RedisLedger
from ecs_queue.ledger.script_text import operation_names
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.event_health import EventFact, EventFactKind
from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.redis_connection import connect
from tests.conformance.ledger.harness import (
    PREFIX,
    LedgerHarness,
    claim_request,
    make_redis_harness,
    make_refusal,
    make_report,
    make_submission,
    make_worker,
    task_update,
)
from tests.fake_clock import START
from tests.fuzz.runner import Target
from tests.servers import require_redis_binary

_SOUND = "sound"
_IDS = ("queued", "launching", "launched", "ended", "absent")
_RECORD_FIELDS = Record.__struct_fields__
_SHARED_KEYS = (
    *("due", "unclaimed:default", "retry:default", "expiry", "undelivered:airflow", "arns", "live", "finished"),
    "capacity:default",
    *(
        "counts",
        "bucket:b",
        "capacity:default",
        "paused",
        "delivery:n",
        "last_delivery:n",
        "dead_letters",
        "dead_letter_times",
    ),
    *("dead_letter_bytes", "event_health", "old_workers", "workers", "broken", "broken_checks", "clock"),
)
_KEYS = (*_SHARED_KEYS, *(f"{kind}:{record_id}" for kind in ("r", "payload") for record_id in _IDS))
_values = st.one_of(
    st.sampled_from(
        [
            *(
                b"",
                b"0",
                b"1",
                b"-1",
                b"nan",
                b"inf",
                b"-inf",
                b"1e300",
                b"0x10",
                b"1e13",
                b"9" * 400,
                b" 1",
                b"1 2 {}",
            ),
            *(b"\xff\xfe", b"\xed\xa0\x80", b"%s%n", b"\x00", b"x" * 3000, b"QUEUED", b"LAUNCHING", b"LAUNCHED"),
            *(b"SUCCESS", b"PARKED", b"record queued", b"worker w", b"key due", b"1.000 0 reason", b"{}", b"[]"),
            *(record_id.encode() for record_id in _IDS),
        ]
    ),
    st.binary(max_size=12),
    st.floats(0, 3e9).map(lambda number: f"{number:.3f}".encode()),
)
_scores = st.sampled_from((0.0, 1.0, -1.0, 1.6e9, 3e9, 1e300, float("inf"), float("-inf")))
_members = st.one_of(st.sampled_from([name.encode() for name in (*_IDS, "default|QUEUED", "worker w")]), _values)
_INNER_NAMES = ("flat", "changed", "before", "is_payload_inside", "changed_payload")  # lua/10_record.lua
_fields = st.sampled_from([name.encode() for name in (*_RECORD_FIELDS, *_INNER_NAMES)])


@dataclass(frozen=True)
class Example:
    """What is stored behind the ledger's back, then the arguments of a call of the script, then operations."""

    stored: Sequence[tuple[Any, ...]]
    raw_call: tuple[Any, ...]
    operations: Sequence[tuple[str, str]]


def _stored() -> st.SearchStrategy[tuple[Any, ...]]:
    """A command of another program on one of the ledger's keys."""
    key = st.sampled_from([PREFIX + name for name in _KEYS])
    record_key = st.sampled_from([PREFIX + f"r:{record_id}" for record_id in _IDS])
    shared_key = st.sampled_from([PREFIX + name for name in _SHARED_KEYS])
    return st.one_of(
        st.tuples(st.just("HSET"), record_key, _fields, _values),
        st.tuples(st.just("HSET"), record_key, _fields, _values),
        st.tuples(st.just("HDEL"), record_key, _fields),
        st.tuples(st.just("HSET"), shared_key, _members, _values),
        st.tuples(st.just("ZADD"), shared_key, _scores, _members),
        st.tuples(st.just("REPLACE WITH"), key, st.sampled_from(("SET", "RPUSH", "SADD")), _values),
        st.tuples(st.just("DEL"), key),
    )


#: Operations on all records: with raw arguments they may move the sound one, too, as they would for a caller of ours.
_ON_ALL = {"lease_due", "lease_due_retries", "lease_unclaimed", "lease_expired", "reschedule_poll", "poll_soon"}
_ARGUMENTS = st.lists(_values, max_size=14)
_raw_calls = st.tuples(st.sampled_from([name for name in operation_names() if name not in _ON_ALL]), _ARGUMENTS).map(
    lambda call: (call[0], *call[1])
)


def _operations(ledger: RedisLedger) -> dict[str, Callable[[str], Any]]:
    """One operation of each kind on a record; claims, nonces and ARNs are those that the records have."""
    claim = claim_request("claim-1")

    def update(record_id: str) -> Any:
        known = Record(id=record_id, launch=1, arn=f"arn:{record_id}")
        return ledger.update_tasks([task_update(known, 3, end_state=State.FAILED, exit_code=1)])

    return {
        "put": lambda record_id: ledger.put([make_submission(record_id)]),
        "put_and_claim": lambda record_id: ledger.put_and_claim(make_submission(record_id), claim),
        "claim": lambda record_id: ledger.claim(record_id, claim),
        "reclaim": lambda record_id: ledger.reclaim(record_id, claim),
        "launched": lambda record_id: ledger.launched(record_id, "nonce-01", 1, f"arn:{record_id}", 1.0),
        "call_ambiguous": lambda record_id: ledger.call_ambiguous(record_id, "claim-1", 1.0, "why"),
        "no_effect": lambda record_id: ledger.no_effect(record_id, "claim-1", 1.0, "why"),
        "refused": lambda record_id: ledger.refused(record_id, "claim-1", *make_refusal(RefusalKind.PERMANENT)),
        "task_absent": lambda record_id: ledger.task_absent(record_id, "claim-1", 1.0),
        "update": update,
        "stop": lambda record_id: ledger.stop([record_id], "ann"),
        "adopt": lambda record_id: ledger.adopt([record_id], "bob"),
        "confirm": lambda record_id: ledger.confirm([(record_id, "nonce-01")], "airflow"),
        "reschedule": lambda record_id: ledger.reschedule_poll({record_id: 0.0}),
        "get": lambda record_id: ledger.get_with_payload([record_id]),
        "find": lambda record_id: ledger.find_id_by_arn(f"arn:{record_id}"),
        "lease_due": lambda _: ledger.lease_due(10),
        "lease_retries": lambda _: ledger.lease_due_retries("default", 10),
        "lease_unclaimed": lambda _: ledger.lease_unclaimed("default", 10),
        "lease_expired": lambda _: ledger.lease_expired(10),
        "poll_soon": lambda _: ledger.poll_soon(1.0, 10),
        "list": lambda _: ledger.list_records("", 20),
        "undelivered": lambda _: ledger.list_undelivered("airflow", 20),
        "counts": lambda _: ledger.count_by_state(),
        "tokens": lambda _: ledger.take_tokens("b", 1, 10.0, 10),
        "capacity": lambda name: ledger.report_capacity("default", make_report(name)),
        "throttle": lambda _: ledger.record_throttle("b"),
        "pause": lambda _: ledger.pause_queues(["etl"]),
        "paused": lambda _: ledger.list_paused_queues(),
        "resume": lambda _: ledger.resume_queues(["etl"]),
        "facts": lambda _: ledger.record_event_facts([EventFact("s", EventFactKind.TIMELY, 1.0)]),
        "health": lambda _: ledger.get_event_health(),
        "delivery": lambda _: ledger.begin_delivery("n", "1"),
        "delivered": lambda _: ledger.end_delivery("n"),
        "letter": lambda name: ledger.add_dead_letter(DeadLetter(key=name, queue="q", reason="r", body=b"b")),
        "letters": lambda name: (ledger.list_dead_letters(10), ledger.get_dead_letters([name])),
        "delete": lambda name: ledger.delete_dead_letters([name]),
        "heartbeat": lambda _: ledger.heartbeat(make_worker("w"), 60.0),
        "workers": lambda _: ledger.list_workers(),
        "broken": lambda _: (ledger.check_broken(100), ledger.drop_broken(ledger.list_broken())),
        "prune": lambda _: ledger.prune(100),
    }


def _make_records(harness: LedgerHarness) -> None:
    harness.make_queued(_SOUND, request=b"sound")
    harness.make_queued("queued")
    harness.make_launching("launching")
    harness.make_launched("launched", arn="arn:launched")
    harness.make_ended("ended")
    harness.ledger.heartbeat(make_worker("w"), 60.0)


def _store(client: Any, command: tuple[Any, ...]) -> None:
    try:
        if command[0] == "REPLACE WITH":
            client.delete(command[1])
            client.execute_command(command[2], command[1], command[3])
        else:
            client.execute_command(*command)
    except redis.exceptions.ResponseError:
        return  # the key holds another type: an earlier command replaced it


def _run_raw(ledger: RedisLedger, call: tuple[Any, ...]) -> None:
    try:
        ledger._script.run_one(*call)
    except LedgerUnavailable as error:
        # A call that makes no sense is answered with an error; the server has not hung or lost its connection.
        if not isinstance(error.__cause__, redis.exceptions.ResponseError):
            raise


def _check_sound_record(harness: LedgerHarness) -> None:
    """The record beside the broken ones can be claimed, launched and ended; the server answers."""
    record = harness.get_record(_SOUND)
    assert (record.state, record.request, record.launch) == (State.QUEUED, b"sound", 1)
    assert harness.ledger.claim(_SOUND, claim_request("sound")).code in (ResultCode.RUN_TASK, ResultCode.PAUSED)


@contextmanager
def open_lua_target() -> Iterator[Target]:
    """Change what the server stores, call the script with anything, then do what workers and clients do."""
    with (
        RedisServer(binary=require_redis_binary()) as server,
        connect(server.url, socket_timeout=30.0, max_connections=4) as client,
    ):
        harness = make_redis_harness(client)
        assert isinstance(harness.ledger, RedisLedger)
        names = sorted(_operations(harness.ledger))
        operation = st.tuples(st.sampled_from(names), st.sampled_from(_IDS))
        yield Target(
            st.builds(
                Example,
                st.lists(_stored(), max_size=4),
                st.just(()) | _raw_calls,
                st.lists(operation, min_size=1, max_size=6),
            ),
            lambda example: _check_ledger(client, harness, example),
            max_bytes=8 * 1024**2,
            max_cpu_seconds=10.0,
        )


def _check_ledger(client: Any, harness: LedgerHarness, example: Example) -> None:
    client.flushdb()
    ledger = harness.ledger
    assert isinstance(ledger, RedisLedger)
    harness.clock.now = START
    _make_records(harness)
    for command in example.stored:
        _store(client, command)
    if example.raw_call:
        _run_raw(ledger, example.raw_call)
    operations = _operations(ledger)
    for name, record_id in example.operations:
        operations[name](record_id)
        harness.clock.advance(1.0)
    _check_sound_record(harness)
    assert client.dbsize() < len(_KEYS) + 20  # nothing grows with what was stored
