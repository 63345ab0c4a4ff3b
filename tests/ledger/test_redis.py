"""What only the Redis implementation has: restarts, durability, passwords, key hygiene, size."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from ecs_queue.errors import ConfigError, LedgerUnavailable, WriteNotDurable
from ecs_queue.findings import Finding, Severity
from ecs_queue.ledger import Ledger, RedisLedger
from ecs_queue.ledger.base import RequestOperations
from ecs_queue.ledger.contracts import read_contracts
from ecs_queue.ledger.redis_script import Script
from ecs_queue.ledger.script_text import render_script
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.operations import RefusalKind, ResultCode, RunnerTask, SettleRequest
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import ledger_prefix
from tests.conformance.ledger.harness import (
    PREFIX,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
    task_update,
)
from tests.protocol.settings import DEFAULT_SETTINGS
from tests.servers import require_redis_binary, valkey_binary
from tests.wait import wait_until

_SECRET = "hunter2-topsecret"
#: An operation that is not about one record, and cannot be carried out.
_FAILING_CALL = ("heartbeat", "failing", "no number", _SECRET)
_BARRIER_OPERATIONS = [name for name, each in read_contracts(*Ledger.__bases__).items() if each.has_barrier]


def _ledger(client: redis.Redis, durability: str = "server", barrier_seconds: float = 4.0) -> RedisLedger:
    return RedisLedger(client, "test", DEFAULT_SETTINGS, durability, barrier_seconds)


def _now_submission(ledger: RedisLedger, record_id: str = "job", **fields: Any) -> Any:
    return make_submission(record_id, accept_until=ledger.now() + 600, **fields)


def _keys(client: Any) -> dict[str, str]:
    return {key.decode(): client.type(key).decode() for key in client.keys("*")}


def test_a_restarted_server_is_given_the_script_again(tmp_path: Path) -> None:
    binary = require_redis_binary()
    with (
        RedisServer(binary=binary, data_dir=tmp_path, appendonly="always") as server,
        connect(server.url, socket_timeout=5.0, max_connections=4) as client,
    ):
        ledger = _ledger(client)
        assert ledger.put([_now_submission(ledger)])[0].code is ResultCode.CREATED
        server.kill()
        server.start()
        assert client.script_exists(ledger._script.digest("put")) == [False]
        results = ledger.put([_now_submission(ledger), _now_submission(ledger, "two")])
        assert [result.code for result in results] == [ResultCode.UNCHANGED, ResultCode.CREATED]


def test_of_a_batch_only_the_calls_whose_script_the_server_did_not_know_are_sent_again(client: Any) -> None:
    client.script_flush()
    script = Script(client, ledger_prefix(PREFIX), DEFAULT_SETTINGS, "server", 1.0, lambda: 100.0)
    script.run_one("begin_delivery", "a", "1")
    client.config_resetstat()
    assert script.run_many([("begin_delivery", "a", "2"), ("end_delivery", "b"), ("begin_delivery", "a", "3")]) == [
        2,
        0,
        3,
    ]
    assert client.info("commandstats")["cmdstat_incr"]["calls"] == 2


def test_without_a_clock_the_servers_time_counts_to_the_millisecond(client: Any) -> None:
    ledger = _ledger(client)
    before = ledger.now()
    seconds, microseconds = client.time()
    after = ledger.now()
    assert before - 0.001 <= seconds + microseconds / 1e6 <= after + 0.001
    assert round(after, 3) == after
    ledger.put([_now_submission(ledger)])
    result = ledger.claim("job", claim_request())
    assert result.record is not None
    assert result.record.lease_until == pytest.approx(result.record.last_claim_at + 30, abs=1e-6)


def test_an_operation_is_one_round_trip(client: Any) -> None:
    ledger = _ledger(client)
    ledger.put([_now_submission(ledger, "first")])
    ledger.put_and_claim(_now_submission(ledger, "second"), claim_request())  # the server has the scripts
    before = client.info("stats")["total_reads_processed"]
    ledger.put_and_claim(_now_submission(ledger), claim_request())  # now() is the other one
    ledger.put([_now_submission(ledger, str(number)) for number in range(1)])
    after = client.info("stats")["total_reads_processed"]
    assert after - before == 5  # two now(), put_and_claim, put, and INFO itself


def test_a_claim_on_valkey_waits_until_it_is_on_disk(tmp_path: Path) -> None:
    with (
        RedisServer(binary=valkey_binary(), data_dir=tmp_path, appendonly="always") as server,
        connect(server.url, socket_timeout=5.0, max_connections=4) as client,
    ):
        ledger = _ledger(client, "aof")
        assert not any(finding.prevents_launches for finding in ledger.check_server())
        ledger.put([_now_submission(ledger)])
        assert ledger.claim("job", claim_request()).code is ResultCode.RUN_TASK
        server.kill()
        server.start()
        record = ledger.get_with_payload(["job"])[0]
        assert record is not None
        assert (record.state, record.claim) == (State.LAUNCHING, "claim-1")


def test_a_server_that_cannot_confirm_is_not_durable_and_says_why() -> None:
    with (
        RedisServer(binary=valkey_binary()) as server,
        connect(server.url, socket_timeout=5.0, max_connections=4) as client,
    ):
        ledger = _ledger(client, "aof")
        ledger.put([_now_submission(ledger)])
        with pytest.raises(WriteNotDurable, match="appendonly"):
            ledger.claim("job", claim_request())
        assert any(
            finding.prevents_launches and "appendonly yes" in finding.advice for finding in ledger.check_server()
        )


@pytest.mark.parametrize("operation", _BARRIER_OPERATIONS)
def test_operations_with_a_barrier_need_a_replica_if_so_configured(client: Any, operation: str) -> None:
    ledger = _ledger(client, "replica", barrier_seconds=0.05)
    new = _now_submission(ledger)
    ledger.put([new])
    calls: dict[str, Callable[[], Any]] = {
        "claim": lambda: ledger.claim("job", claim_request()),
        "put_and_claim": lambda: ledger.put_and_claim(new, claim_request()),
        "reclaim": lambda: ledger.reclaim("job", claim_request()),
        "refused": lambda: ledger.refused("job", "claim-1", RefusalKind.PERMANENT, 1.0, "no", 1),
        "task_absent": lambda: ledger.task_absent("job", "claim-1", 1.0),
        "stop": lambda: ledger.stop(["job"], "ann"),
        "adopt": lambda: ledger.adopt(["job"], "bench"),
        "pause_queues": lambda: ledger.pause_queues(["default"]),
        "resume_queues": lambda: ledger.resume_queues(["default"]),
        "settle": lambda: ledger.settle([SettleRequest(id="job")]),
        "update_runner_tasks": lambda: ledger.update_runner_tasks([task_update(Record(id="job"))]),
        "put_back": lambda: ledger.put_back(["job"]),
        "may_stop": lambda: ledger.may_stop([RunnerTask("runner", "arn:1")]),
        "close_silent": lambda: ledger.close_silent(0, 10),
        "drain_runs": lambda: ledger.drain_runs(["runner"]),
    }
    with pytest.raises(WriteNotDurable, match="did not confirm"):
        calls[operation]()
    assert any(finding.prevents_launches and "replica" in finding.text for finding in ledger.check_server())


def test_operations_without_a_barrier_do_not_wait_for_a_replica(client: Any) -> None:
    plain, durable = _ledger(client), _ledger(client, "replica", barrier_seconds=0.05)
    called = {"put": durable.put([_now_submission(plain)])[0].code}
    plain.claim("job", claim_request())
    called["no_effect"] = durable.no_effect("job", "claim-1", 0.0, "throttled").code
    plain.claim("job", claim_request("claim-2"))
    called["call_ambiguous"] = durable.call_ambiguous("job", "claim-2", 0.0, "a time-out").code
    called["launched"] = durable.launched("job", "nonce-01", 1, "arn:1", 1.0).code
    record = plain.get(["job"])[0]
    assert record is not None
    called["update_tasks"] = durable.update_tasks([task_update(record, end_state=State.SUCCESS)])[0].code
    called["confirm"] = durable.confirm([("job", "nonce-01")], "airflow")[0].code
    assert durable.lease_due(10) == []

    contracts = read_contracts(RequestOperations)
    assert called.keys() == {name for name, each in contracts.items() if not each.has_barrier}
    assert {called.pop("put"), called.pop("update_tasks")} == {ResultCode.CREATED, ResultCode.ENDED}
    assert set(called.values()) == {ResultCode.OK}


def _find(ledger: Any, check: str) -> Finding:
    (found,) = (finding for finding in ledger.check_server() if finding.check == check)
    return found  # type: ignore[no-any-return]


def test_a_server_that_drops_keys_is_a_finding(client: Any, harness: LedgerHarness) -> None:
    assert _find(harness.ledger, "server.eviction").severity is Severity.OK
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        finding = _find(harness.ledger, "server.eviction")
        assert (finding.severity, finding.prevents_launches) == (Severity.ERROR, False)
    finally:
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{_SECRET}/x@127.0.0.1:1/0",
        f"redis://user:x#{_SECRET}@127.0.0.1:1/0",
        f"http://user:{_SECRET}@127.0.0.1:1/0",
        f"redis://user:{_SECRET}@127.0.0.1:port/0",
        f"redis://user:{_SECRET}@127.0.0.1:1/0?nope=1",
        f"redis://user:{_SECRET}@127.0.0.1:1/0?socket_timeout=soon",
    ],
)
def test_a_url_that_cannot_be_used_is_a_config_error_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(url, socket_timeout=1.0, max_connections=1)
    error: BaseException | None = caught.value
    assert "ledger_url" in str(error)
    assert _SECRET not in str(error)
    assert error is not None
    assert error.__suppress_context__
    assert error.__cause__ is None


def test_no_error_of_a_server_shows_the_password(redis_server: RedisServer) -> None:
    for url in (
        f"redis://user:{_SECRET}@127.0.0.1:{redis_server.port}/0",  # it knows no such user
        f"redis://user:{_SECRET}@127.0.0.1:1/0",  # no server listens
    ):
        with connect(url, socket_timeout=1.0, max_connections=2) as client:
            ledger = _ledger(client)
            for call in (ledger.now, ledger.count_by_state, lambda ledger=ledger: ledger.put([make_submission()])):
                with pytest.raises(LedgerUnavailable) as caught:
                    call()
                shown = "".join(traceback.format_exception(caught.value))
                assert _SECRET not in shown
                assert "ledger_url" in shown


def test_an_error_of_the_script_does_not_quote_the_payload(client: Any) -> None:
    script = Script(client, PREFIX, DEFAULT_SETTINGS, "server", 1.0, None)
    with pytest.raises(LedgerUnavailable) as caught:
        script.run_many([_FAILING_CALL, ("heartbeat", "other", "1", "{}")])
    assert _SECRET not in str(caught.value)
    assert "arithmetic" in str(caught.value)


def test_an_error_of_one_call_does_not_fail_the_calls_of_the_same_run(client: Any) -> None:
    script = Script(client, PREFIX, DEFAULT_SETTINGS, "server", 1.0, None)
    with pytest.raises(LedgerUnavailable, match="arithmetic"):
        script.run_many([("heartbeat", "before", "1", "{}"), _FAILING_CALL, ("heartbeat", "after", "1", "{}")])
    assert set(client.hkeys(f"{PREFIX}workers")) == {b"before", b"after"}


def test_only_the_failing_call_of_a_shared_round_trip_gets_the_error(client: Any) -> None:
    client.script_load(render_script(DEFAULT_SETTINGS, "heartbeat"))  # else its first run is one more call
    in_progress, proceed = threading.Event(), threading.Event()

    def clock() -> float:
        in_progress.set()
        assert proceed.wait(10)  # the first round trip is in progress until the others wait for the next
        return 100.0

    script = Script(client, ledger_prefix(PREFIX), DEFAULT_SETTINGS, "server", 1.0, clock)
    calls = [("heartbeat", "b", "1", "{}"), _FAILING_CALL, ("heartbeat", "c", "1", "{}")]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(script.run_batched, "heartbeat", "a", "1", "{}")
        assert in_progress.wait(10)
        others = [pool.submit(script.run_batched, *call) for call in calls]
        wait_until(lambda: len(script._batcher._pending) >= 3, interval=0.001)
        client.config_resetstat()
        proceed.set()
        results = [call.exception(10) or call.result() for call in (first, *others)]
    assert [results[position] for position in (0, 1, 3)] == [[b"ok"]] * 3
    assert isinstance(results[2], LedgerUnavailable)
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


def test_threads_share_a_round_trip_for_different_operations(client: Any) -> None:
    in_progress, proceed = threading.Event(), threading.Event()

    def clock() -> float:
        in_progress.set()
        assert proceed.wait(10)
        return 100.0

    script = Script(client, ledger_prefix(PREFIX), DEFAULT_SETTINGS, "server", 1.0, clock)
    calls: list[tuple[Any, ...]] = [
        ("stop", "a", "me", 1),
        ("record_event_fact", "source", "timely_at", "7.000"),
        ("stop", "b", "me", 1),
        ("now",),
    ]
    known = Script(client, ledger_prefix(PREFIX), DEFAULT_SETTINGS, "server", 1.0, lambda: 100.0)
    known.run_many(calls)  # the server has the scripts
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(script.run_batched, "stop", "c", "me", 1)
        assert in_progress.wait(10)
        others = [pool.submit(script.run_batched, *call) for call in calls]
        wait_until(lambda: len(script._batcher._pending) >= 4, interval=0.001)
        client.config_resetstat()
        proceed.set()
        results = [call.result(10) for call in (first, *others)]
    assert results == [[b"not_found"], [b"not_found"], [b"ok"], [b"not_found"], b"100.000000"]
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 4  # both stops in one run


def test_a_call_that_cannot_be_encoded_fails_alone_before_it_is_sent(client: Any) -> None:
    script = Script(client, ledger_prefix(PREFIX), DEFAULT_SETTINGS, "server", 1.0, None)
    with pytest.raises(UnicodeEncodeError):
        script.run_batched("stop", "a", "\ud800", 1)
    assert script.run_batched("stop", "a", "me", 1) == [b"not_found"]


def test_an_error_of_the_script_is_raised_even_if_nothing_can_be_confirmed(client: Any) -> None:
    script = Script(client, PREFIX, DEFAULT_SETTINGS, "replica", 0.05, None)
    with pytest.raises(LedgerUnavailable, match="arithmetic"):
        script.run_many([_FAILING_CALL], durable=True)


def test_of_a_confirmed_end_only_the_record_with_its_ttl_and_the_page_entry_are_left(
    client: Any, harness: LedgerHarness
) -> None:
    harness.make_launching(expires_at=harness.clock.now + 600)
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.START_FAILURE))
    harness.advance(2)
    harness.ledger.claim("job", claim_request("claim-2"))
    harness.ledger.launched("job", "nonce-01", 2, "arn:2", 1.0)
    harness.stop()
    harness.update_task(harness.get_record(), end_state=State.FAILED, stopped_by_user=True)
    harness.ledger.confirm([("job", "nonce-01")], "airflow")
    client.delete(f"{PREFIX}old_workers")  # as a second later
    shared = {f"{PREFIX}counts": "hash", f"{PREFIX}clock": "hash"}
    assert _keys(client) == {f"{PREFIX}r:job": "hash", f"{PREFIX}finished": "zset", **shared}
    assert harness.ledger.count_by_state() == {"default": {State.REVOKED: 1}}
    gone_at = client.zscore(f"{PREFIX}finished", "job")
    assert client.pttl(f"{PREFIX}r:job") == pytest.approx((gone_at - harness.clock.now) * 1000, abs=5000)
    harness.advance(30 * 86400)
    assert harness.ledger.prune(10) == 1
    assert _keys(client) == shared


def test_the_results_of_an_owner_that_never_returns_are_forgotten(client: Any, harness: LedgerHarness) -> None:
    harness.make_ended("one")
    key = f"{PREFIX}undelivered:airflow"
    first = client.pttl(key)
    assert first == pytest.approx(client.pttl(f"{PREFIX}r:one"), abs=1000)
    harness.make_ended("two", accept_until=harness.clock.now + 90 * 86400)
    assert client.pttl(key) == pytest.approx(client.pttl(f"{PREFIX}r:two"), abs=1000)
    harness.make_ended("three")
    assert client.pttl(key) > first + 86_400_000


def test_a_live_record_has_no_ttl(client: Any, harness: LedgerHarness) -> None:
    harness.make_launched()
    assert client.ttl(f"{PREFIX}r:job") == -1


def test_an_index_entry_whose_record_was_lost_is_dropped(client: Any, harness: LedgerHarness) -> None:
    harness.make_launched("a")
    harness.make_queued("b", expires_at=harness.clock.now + 1)
    harness.make_ended("c")
    client.delete(*(f"{PREFIX}r:{name}" for name in "abc"))
    harness.advance(60)
    assert harness.ledger.lease_due(10) + harness.ledger.lease_unclaimed("default", 10) == []
    assert harness.ledger.lease_expired(10) == []
    assert harness.ledger.list_undelivered("airflow", 10) == []
    left = [client.zcard(PREFIX + key) for key in ("due", "unclaimed:default", "expiry", "undelivered:airflow")]
    assert left == [0, 0, 0, 0]


def test_two_namespaces_on_one_server_share_nothing(client: Any) -> None:
    one = RedisLedger(client, "one", DEFAULT_SETTINGS)
    two = RedisLedger(client, "two", DEFAULT_SETTINGS)
    one.put([_now_submission(one)])
    assert two.get(["job"]) == [None]
    assert two.take_tokens("run", 1, 1.0, 1) == one.take_tokens("run", 1, 1.0, 1)


def test_a_field_of_a_newer_version_is_left_alone(client: Any, harness: LedgerHarness) -> None:
    harness.make_queued()
    client.hset(f"{PREFIX}r:job", "invented_later", "x")
    assert harness.ledger.claim("job", claim_request()).code is ResultCode.RUN_TASK
    assert client.hget(f"{PREFIX}r:job", "invented_later") == b"x"
    assert harness.get_state() is State.LAUNCHING


def test_a_batch_of_thousands_returns_results_in_order(client: Any, harness: LedgerHarness) -> None:
    results = harness.ledger.put([make_submission(f"job-{number}") for number in range(2500)])
    assert {result.code for result in results} == {ResultCode.CREATED}
    found = harness.ledger.get([f"job-{number}" for number in range(2500)])
    assert [record.id if record else None for record in found] == [f"job-{number}" for number in range(2500)]


def test_calls_of_one_operation_run_together_fifty_at_a_time(client: Any, harness: LedgerHarness) -> None:
    harness.ledger.put([make_submission("first")])
    client.config_resetstat()

    results = harness.ledger.put([make_submission(f"job-{number % 119}") for number in range(120)])

    assert [result.code for result in results] == [ResultCode.CREATED] * 119 + [ResultCode.UNCHANGED]
    assert results[-1].record is not None
    assert results[-1].record.id == "job-0"
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3  # fifty at once


def test_calls_of_different_operations_return_replies_in_order(client: Any) -> None:
    script = Script(client, ledger_prefix(PREFIX), DEFAULT_SETTINGS, "server", 1.0, lambda: 100.0)
    for call in (("begin_delivery", "c", "6"), ("end_delivery", "c"), ("now",), ("pause_queues", "w")):
        script.run_one(*call)  # a server that does not know the scripts runs the calls in another order
    deliveries = [("begin_delivery", "a", "1"), ("begin_delivery", "a", "2"), ("begin_delivery", "b", "3")]
    later = [("begin_delivery", "a", "4"), ("begin_delivery", "b", "5")]

    results = script.run_many(
        [
            *deliveries,
            ("end_delivery", "a"),
            ("now",),
            ("now",),
            ("pause_queues", "x"),
            ("pause_queues", "y", "z"),
            *later,
        ]
    )

    assert results[:4] == [1, 2, 1, 1]
    assert [float(now) for now in results[4:6]] == [100.0, 100.0]
    assert results[6:] == [[b"ok"], [b"ok"], 1, 2]


def test_a_launched_record_of_a_small_command_takes_less_than_six_kilobytes(
    client: Any, harness: LedgerHarness
) -> None:
    body = msgspec.json.encode(
        {
            "kind": "request",
            "v": 1,
            "id": "x" * 36,
            "command": ["python", "-m", "job", "--day", "2024-01-01"],
            "submitted_at": 1700000000.123,
            "accept_until": 1700086400.123,
            "owner": "airflow-scheduler-1",
        }
    )
    args = msgspec.json.encode(
        {
            "container_name": "main",
            "max_attempts": 3,
            "run_task": {
                "taskDefinition": "job:12",
                "launchType": "FARGATE",
                "platformVersion": "LATEST",
                "networkConfiguration": {
                    "awsvpcConfiguration": {
                        "subnets": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
                        "securityGroups": ["sg-0123456789abcdef0"],
                        "assignPublicIp": "DISABLED",
                    }
                },
                "overrides": {"containerOverrides": [{"name": "main", "command": ["python", "-m", "job"]}]},
            },
        }
    ).decode()
    target = '{"region":"eu-central-1","cluster":"production","role_arn":null,"endpoint_url":null}'
    before, number = client.info("memory")["used_memory"], 2000
    for index in range(number):
        name = f"{index:036d}"
        harness.ledger.put_and_claim(
            make_submission(name, request=body), claim_request(f"{index:032d}", args=args, target=target)
        )
        arn = f"arn:aws:ecs:eu-central-1:123456789012:task/production/{index:032d}"
        harness.ledger.launched(name, "nonce-01", 1, arn, 1.0)
    assert harness.ledger.count_by_state() == {"default": {State.LAUNCHED: number}}
    assert (client.info("memory")["used_memory"] - before) / number < 6 * 1024
