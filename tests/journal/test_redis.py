"""The journal on a real server: ordered, indexed by request, bounded, each batch stored once."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
import redis

from ecs_queue.config import Config, load_config
from ecs_queue.errors import JournalUnavailable, UsageError
from ecs_queue.journal import JournalEvent, RedisJournal, open_event_encoder, open_journal, open_journal_store
from ecs_queue.journal.base import EventBatch, newest_envelope, seq_sort_key
from ecs_queue.journal.encoder import EventEncoder
from ecs_queue.journal.jsonl import import_events
from ecs_queue.ledger.broken_items import DropResult
from ecs_queue.ledger.redis import RedisLedger
from ecs_queue.messages.keyring import Keyring
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import namespace_prefix
from tests.protocol.settings import DEFAULT_SETTINGS


class BatchWriter:
    """Appends events of a few requests."""

    def __init__(self, journal: RedisJournal, name: str = "w1") -> None:
        self._journal = journal
        self._name = name
        self._number = 0

    def write(self, *ids: str, at: float = 1.0, padding: str = "", name: str = "request.received") -> EventBatch:
        """Append one batch with an event for each id."""
        self._number += 1
        data = {"queue": "q", "padding": padding}
        events = [{"v": 1, "at": at + n / 10, "name": name, "id": id, "data": data} for n, id in enumerate(ids)]
        batch = EventBatch(
            writer_id=self._name,
            batch_number=self._number,
            worker=self._name,
            event_count=len(events),
            request_ids=list(dict.fromkeys(ids)),
            body=msgspec.json.encode(events),
        )
        self._journal.append(batch)
        return batch


@pytest.fixture
def writer(journal: RedisJournal) -> BatchWriter:
    return BatchWriter(journal)


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def ids_of(events: Any) -> list[str]:
    return [event.id for event in events]


def test_events_come_back_in_order_with_their_worker_and_place(journal: RedisJournal, writer: BatchWriter) -> None:
    writer.write("a", "b")
    BatchWriter(journal, "w2").write("c", at=2.0)

    events = list(journal.all_events())

    assert ids_of(events) == ["a", "b", "c"]
    assert [event.worker for event in events] == ["w1", "w1", "w2"]
    assert [event.seq.partition(".")[2] for event in events] == ["0", "1", "0"]
    assert sorted(events, key=lambda event: seq_sort_key(event.seq)) == events
    assert journal.last_seq() == events[-1].seq


def test_an_empty_journal_has_nothing(journal: RedisJournal) -> None:
    assert list(journal.all_events()) == []
    assert list(journal.request_events("a")) == []
    assert list(journal.pages_newest_first()) == []
    assert (journal.last_seq(), newest_envelope(journal.request_events("a")), journal.size()) == ("", None, (0, 0))


def test_one_request_is_read_without_the_others(
    journal: RedisJournal, writer: BatchWriter, server: redis.Redis
) -> None:
    for number in range(50):
        writer.write(f"x{number}", "a" if number in (7, 31) else "y", at=float(number))
    before = _read_elements(server)

    assert ids_of(journal.request_events("a")) == ["a", "a"]
    assert _read_elements(server) - before == 2


def _read_elements(server: redis.Redis) -> int:
    """Return how often XRANGE has run, which is once per element."""
    stats: Any = server.info("commandstats")
    return int(stats.get("cmdstat_xrange", {}).get("calls", 0))


def test_events_of_a_request_are_in_the_order_of_their_time(journal: RedisJournal, writer: BatchWriter) -> None:
    """A client may write later than the worker."""
    BatchWriter(journal, "worker").write("a", at=7.0, name="request.received")
    BatchWriter(journal, "").write("a", at=5.0, name="request.submitted")

    assert [event.name for event in journal.request_events("a")] == ["request.submitted", "request.received"]


def test_events_can_be_limited_to_a_time_range(journal: RedisJournal, writer: BatchWriter) -> None:
    now = journal.now() - 100
    for place, record_id in enumerate("abcd"):
        writer.write(record_id, "z", at=now + 10 * place)

    assert set(ids_of(journal.all_events(now + 5, now + 25))) == {"b", "c", "z"}
    assert len(list(journal.request_events("z", now + 5, now + 25))) == 2


def test_a_batch_that_is_sent_again_is_there_once(journal: RedisJournal, writer: BatchWriter) -> None:
    batch = writer.write("a")
    journal.append(batch)
    BatchWriter(journal, "w2").write("a")

    assert [event.worker for event in journal.request_events("a")] == ["w1", "w2"]


def test_many_pages_are_read_in_both_directions(journal: RedisJournal, writer: BatchWriter) -> None:
    for number in range(45):
        writer.write(str(number), f"{number}b")

    forth = ids_of(journal.all_events())
    back = [ids_of(page) for page in journal.pages_newest_first()]

    assert len(forth) == 90
    assert [record_id for page in reversed(back) for record_id in page] == forth


def test_a_few_of_the_newest_events_are_found_in_a_few_elements(journal: RedisJournal, writer: BatchWriter) -> None:
    """An element of a busy worker has 500 events, and takes some 20 ms to decode."""
    for number in range(45):
        writer.write(str(number), f"{number}b")

    assert [len(page) // 2 for page in journal.pages_newest_first()] == [1, 2, 4, 8, 16, 14]


def test_the_oldest_events_are_dropped_when_there_are_too_many_bytes(config: Config, redis_url: str) -> None:
    journal = _opened(config, most_bytes=20_000)
    writer = BatchWriter(journal)
    for number in range(200):
        writer.write(f"r{number}", padding=_noise(number))

    kept = ids_of(journal.all_events())
    elements, size = journal.size()

    assert kept == [f"r{number}" for number in range(200 - len(kept), 200)]
    assert 5 <= len(kept) == elements < 100
    assert size <= 20_000
    assert list(journal.request_events("r0")) == []
    assert ids_of(journal.request_events("r199")) == ["r199"]
    journal.close()


def test_dropped_events_leave_no_key(config: Config, server: redis.Redis) -> None:
    journal = _opened(config, most_bytes=20_000)
    writer = BatchWriter(journal)
    for number in range(200):
        writer.write(f"r{number}", "shared", padding=_noise(number))

    kept = ids_of(journal.all_events())
    keys = {key.decode() for key in server.scan_iter("{ecs-queue}:j:r:*")}

    assert keys == {f"{{ecs-queue}}:j:r:{record_id}" for record_id in kept}
    assert server.llen("{ecs-queue}:j:r:shared") == kept.count("shared")
    assert server.llen("{ecs-queue}:j:sizes") == journal.size()[0]
    journal.close()


def test_old_events_are_dropped_with_the_next_append(config: Config) -> None:
    journal = _opened(config, retention=0.2)
    writer = BatchWriter(journal)
    writer.write("old")
    start = journal.now()
    while journal.now() < start + 0.25:
        pass

    writer.write("new")

    assert ids_of(journal.all_events()) == ["new"]
    assert list(journal.request_events("old")) == []
    journal.close()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("RPUSH", ("sizes", "no element")),
        ("RPUSH", ("sizes", "word 5")),
        ("RPUSH", ("sizes", "1-1 99999999999999999999")),
        ("RPUSH", ("sizes", "1-1 999999999999")),
        ("SET", ("bytes", "a few")),
        ("SET", ("bytes", "-999999999")),
        ("SET", ("bytes", str(2**63 - 1))),
        ("RPUSH", ("bytes", "a list")),
        ("SET", ("r:job-5", "no list")),
        ("SET", ("w:w1", "a few")),
        ("RPUSH", ("w:w1", "a list")),
    ],
    ids=str,
)
def test_a_broken_entry_of_its_indexes_neither_stops_it_nor_ends_its_bounds(
    server: Any, command: str, arguments: tuple[str, str]
) -> None:
    server.execute_command(command, f"{{ns}}:j:{arguments[0]}", arguments[1])
    journal = RedisJournal(server, Keyring("ns"), max_bytes=5_000, max_element_bytes=10_000, retention_seconds=60.0)
    writer = BatchWriter(journal)

    for number in range(40):
        writer.write(f"job-{number}", padding="x" * number)

    assert 2 < server.xlen("{ns}:j:s") < 40
    assert [event.id for event in journal.all_events()][-1] == "job-39"


@pytest.mark.parametrize("key", ["s", "sizes", "ids"])
def test_an_index_of_another_type_is_set_aside_and_listed_and_the_bounds_stay(server: redis.Redis, key: str) -> None:
    journal = RedisJournal(server, Keyring("ns"), max_bytes=5_000, max_element_bytes=10_000, retention_seconds=60.0)
    writer = BatchWriter(journal)
    for number in range(11):
        writer.write(f"job-{number}")
    before = journal.size()
    server.delete(f"{{ns}}:j:{key}")
    server.set(f"{{ns}}:j:{key}", "another type")

    writer.write("next")

    ledger = RedisLedger(server, "ns", DEFAULT_SETTINGS)
    (item,) = ledger.list_broken()
    assert item.key == f"key:journal-{key}"
    assert "WRONGTYPE" in item.reason
    assert [event.id for event in journal.all_events()][-1] == "next"
    assert before[1] < journal.size()[1] < 2 * before[1]
    for number in range(40):
        writer.write(f"later-{number}")
    assert "next" not in ids_of(journal.all_events())
    assert journal.size()[1] <= 5_000
    ledger.check_broken(100)
    assert ledger.drop_broken([item]) == [DropResult.DROPPED]
    assert server.keys("{ns}:l:aside:*") == []


def test_a_user_who_may_set_nothing_aside_writes_nothing_until_a_worker_did(server: Any, redis_url: str) -> None:
    """A batch that fails after its append would be appended again and again."""
    server.acl_setuser("submitter", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-rename"])
    server.set("{ns}:j:sizes", "another type")
    with redis.Redis.from_url(redis_url, username="submitter", password="any") as client:
        options: Any = {"max_bytes": 5_000, "max_element_bytes": 10_000, "retention_seconds": 60.0}
        submitter, worker = (RedisJournal(each, Keyring("ns"), **options) for each in (client, server))
        with pytest.raises(JournalUnavailable, match="WRONGTYPE"):
            BatchWriter(submitter, "w2").write("job")
        assert server.exists("{ns}:j:s") == 0

        BatchWriter(worker).write("job")
        BatchWriter(submitter, "w2").write("job")
        assert server.xlen("{ns}:j:s") == 2
    server.acl_deluser("submitter")


def test_an_index_of_a_request_that_is_no_list_is_reported(
    journal: RedisJournal, writer: BatchWriter, server: redis.Redis
) -> None:
    writer.write("a")
    server.delete("{ecs-queue}:j:r:a")
    server.set("{ecs-queue}:j:r:a", "another type")

    assert list(journal.request_events("a")) == []
    assert "the index of a is no list" in journal.skipped.message()


def test_the_memory_it_takes_is_about_what_it_counts(journal: RedisJournal, server: redis.Redis) -> None:
    """By the server's own count of each key: its total includes clients' buffers and scripts."""
    writer = BatchWriter(journal)
    for number in range(300):
        writer.write(*(f"{number}-{n}-{'x' * 30}" for n in range(20)), padding=_noise(number))
    keys: Any = server.keys("*")

    used_bytes = sum(int(server.memory_usage(key, samples=0) or 0) for key in keys)
    counted = journal.size()[1]

    assert 0.4 < used_bytes / counted < 2.5, (used_bytes, counted)


def test_tail_yields_new_events_once(journal: RedisJournal, writer: BatchWriter) -> None:
    writer.write("a", "b")
    first = next(journal.all_events())

    assert ids_of(journal.tail(first.seq, 0.01)) == ["b"], "the rest of the same batch"
    last = journal.last_seq()
    assert ids_of(journal.tail(last, 0.01)) == []

    timer = threading.Timer(0.1, lambda: writer.write("c"))
    timer.start()
    assert ids_of(journal.tail(last, 10.0)) == ["c"], "it waits for it"
    timer.join()


def test_the_newest_envelope_of_an_id_is_the_request(journal: RedisJournal) -> None:
    def submitted(at: float, command: str) -> JournalEvent:
        data = {"envelope": {"kind": "request", "command": [command]}}
        return JournalEvent(v=1, seq="", at=at, name="request.submitted", id="a", data=data)

    import_events([submitted(1.0, "old"), submitted(2.0, "new")], journal, EventEncoder())

    found = newest_envelope(journal.request_events("a"))
    assert found is not None
    assert msgspec.json.decode(found)["command"] == ["new"]


def test_imported_events_keep_time_worker_and_data_without_secrets(journal: RedisJournal) -> None:
    event = JournalEvent(
        v=1, seq="9-0.4", at=1.5, name="health.degraded", worker="w7", data={"reason": "token=hunter2"}
    )
    import_events([event] * 1100, journal, EventEncoder())

    events = list(journal.all_events())

    assert len(events) == 1100
    assert {(e.at, e.name, e.worker, e.data["reason"]) for e in events} == {
        (1.5, "health.degraded", "w7", "token=[redacted]")
    }
    assert len({e.seq for e in events}) == 1100


def test_ids_that_no_request_has_are_not_indexed(
    journal: RedisJournal, writer: BatchWriter, server: redis.Redis
) -> None:
    writer.write("a b", "c" * 49, "ok")

    assert [key.decode() for key in server.scan_iter("{ecs-queue}:j:r:*")] == ["{ecs-queue}:j:r:ok"]


def test_in_a_cluster_it_is_indexed_and_bounded_as_on_one_server(cluster_url: str) -> None:
    config = load_config(environ={}, overrides={"broker_url": cluster_url})
    with closing(_opened(config, most_bytes=20_000)) as journal:
        writer = BatchWriter(journal)
        for number in range(3):
            writer.write("kept", f"job-{number}")
        assert ids_of(journal.request_events("job-1")) == ["job-1"]
        assert len(list(journal.request_events("kept"))) == 3
        for number in range(100):
            writer.write("late", padding=_noise(number))
        assert set(ids_of(journal.all_events())) == {"late"}
        assert journal.size()[1] <= 20_000


def test_two_namespaces_are_separate(config: Config, redis_url: str, writer: BatchWriter) -> None:
    writer.write("a")
    other = open_journal(load_config(environ={}, overrides={"broker_url": redis_url, "namespace": "other"}))

    assert list(other.all_events()) == []
    assert list(other.request_events("a")) == []
    other.close()


def test_a_script_that_the_server_lost_is_loaded_again(journal: RedisJournal, server: redis.Redis) -> None:
    BatchWriter(journal).write("a")
    server.script_flush()
    BatchWriter(journal, "w2").write("b")

    assert ids_of(journal.all_events()) == ["a", "b"]


def test_an_unreachable_server_is_an_error_without_its_password() -> None:
    url = "redis://:hunter2@127.0.0.1:1/0"
    journal = open_journal(load_config(environ={}, overrides={"broker_url": url, "socket_timeout_seconds": "0.2"}))

    for call in (
        journal.now,
        journal.last_seq,
        lambda: list(journal.all_events()),
        lambda: list(journal.request_events("a")),
    ):
        with pytest.raises(JournalUnavailable) as caught:
            call()
        assert "hunter2" not in str(caught.value)
    journal.close()


def test_a_journal_that_is_off_or_in_memory_is_not_written() -> None:
    assert open_journal_store(load_config(environ={}, overrides={"journal": "False"})) is None
    in_memory = load_config(environ={}, overrides={"broker_url": "memory://"})
    assert open_journal_store(in_memory) is None
    with pytest.raises(UsageError, match="a ledger in memory has no journal"):
        open_journal(in_memory)


def _opened(config: Config, most_bytes: int = 10**9, retention: float = 1e6) -> RedisJournal:
    slot_key = namespace_prefix(config.namespace)
    client = connect(config.ledger_url, socket_timeout=5.0, max_connections=2, slot_key=slot_key)
    return RedisJournal(
        client, Keyring(config.namespace), max_bytes=most_bytes, max_element_bytes=2**20, retention_seconds=retention
    )


def _noise(seed: int) -> str:
    """Return text that deflates badly."""
    return "".join(f"{zlib.crc32(f'{seed}-{n}'.encode()):08x}" for n in range(50))


@pytest.fixture
def broken_server(journal: RedisJournal, writer: BatchWriter, server: redis.Redis) -> redis.Redis:
    """Between two events of request a: elements that are no batches, one that is too large, and a spoiled index."""
    writer.write("a")
    elements: list[dict[Any, Any]] = [{"x": "y"}, {"w": "w", "z": "no zlib"}, {"w": "w", "z": bytes(5 * 1024 * 1024)}]
    for fields in elements:
        element = server.xadd("{ecs-queue}:j:s", fields)
        server.rpush("{ecs-queue}:j:r:a", element)
    server.rpush("{ecs-queue}:j:r:a", "nonsense", "99999999999999999999999-1", b"\xff", element)
    BatchWriter(journal, "w2").write("a", at=2.0)
    return server


def test_broken_elements_are_skipped_and_counted_by_every_read(
    journal: RedisJournal, broken_server: redis.Redis
) -> None:
    assert ids_of(journal.request_events("a")) == ["a", "a"]
    assert ids_of(journal.all_events()) == ["a", "a"]
    assert ids_of(event for page in journal.pages_newest_first() for event in page) == ["a", "a"]
    assert ids_of(journal.tail("0-0.0", 0.0)) == ["a", "a"]
    assert len(journal.skipped) == 3


def test_summaries_come_newest_first_without_what_is_broken(journal: RedisJournal, broken_server: redis.Redis) -> None:
    for number in range(45):
        BatchWriter(journal, f"other{number}").write("b", at=float(number), name="request.submitted")
    summaries = list(journal.summaries_newest_first())
    assert [event.at for summary in summaries for event in summary.events] == [float(n) for n in range(44, -1, -1)]
    assert all(summary.size > 0 for summary in summaries)
    assert len(journal.skipped) == 3


def test_an_element_that_is_too_large_is_not_sent(journal: RedisJournal, broken_server: redis.Redis) -> None:
    def sent_bytes() -> int:
        stats: Any = broken_server.info("stats")
        return int(stats["total_net_output_bytes"])

    before = sent_bytes()
    list(journal.all_events())

    assert sent_bytes() - before < 200_000


def test_of_one_request_no_more_is_held_than_the_limit(
    journal: RedisJournal, writer: BatchWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small elements may inflate to large ones: the newest events are shown, and the rest is reported."""
    for number in range(45):
        writer.write("a", "other", at=float(number), padding="x" * 1000)
    monkeypatch.setattr("ecs_queue.journal.redis._MAX_REQUEST_BYTES", 10_000)

    times = [event.at for event in journal.request_events("a")]

    assert times == [float(number) for number in range(45 - len(times), 45)]
    assert 8 <= len(times) <= 11
    assert "a has more than 10000 bytes of events" in journal.skipped.message()


def test_a_journal_that_ends_with_a_broken_element_has_a_newest_place(
    journal: RedisJournal, broken_server: redis.Redis
) -> None:
    element: Any = broken_server.xadd("{ecs-queue}:j:s", {"x": "y"})

    assert journal.last_seq() == f"{element.decode()}.0"
    BatchWriter(journal, "w3").write("b", at=3.0)
    assert ids_of(journal.tail(f"{element.decode()}.0", 0.0)) == ["b"]


def test_nothing_stands_behind_the_last_possible_element(journal: RedisJournal, server: redis.Redis) -> None:
    BatchWriter(journal).write("a")
    server.xadd("{ecs-queue}:j:s", {"x": "y"}, id="18446744073709551615-18446744073709551615")

    assert ids_of(journal.all_events()) == ["a"]
    assert ids_of(journal.tail("0-0.0", 0.0)) == ["a"]
    BatchWriter(journal, "w2").write("b")
    assert ids_of(journal.all_events()) == ["b"]  # the stream that takes no more is set aside
    assert server.xlen("{ecs-queue}:l:aside:journal-s") == 2


def test_a_signed_batch_is_verified_with_the_key_and_its_size_counted(config: Config, redis_url: str) -> None:
    secured = load_config(environ={}, overrides={"broker_url": redis_url, "signing_keys": f"k1:{'s' * 32}"})
    with closing(open_journal(secured)) as journal, closing(open_journal(config)) as keyless:
        encoder = open_event_encoder(secured)
        event = encoder.encode(1.0, "request.received", {"id": "a", "queue": "q"})
        journal.append(encoder.build_batch("0" * 16, 1, "w1", [event], ["a"]))
        BatchWriter(journal, "w2").write("a")

        assert [event.verified for event in journal.request_events("a")] == [True, False]
        assert [event.verified for event in keyless.request_events("a")] == [None, None]
