"""The time of each page of `ecs-queue web`, and the memory of its process, with many records and a full journal.

50 workers, ten queues, 1,000 runners, 10,000 dead letters, a journal at the default size limit of 256 MB. The first
round is measured while the page reads the journal for its charts; the processor's time of a page is the mean of the
others, and does not depend on what else the machine does. The times are those of a client on the same
machine, so they are a little longer than those of the server alone.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from statistics import median
from urllib.parse import urlsplit

import psutil

from bench.measurement import Measurement
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.journal import open_journal
from ecs_queue.journal.encoder import EventEncoder, open_event_encoder
from ecs_queue.ledger.entries import DeadLetter, WorkerInfo, dead_letter_key
from ecs_queue.local.ecs import local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.operations import ClaimRequest

_QUEUES = [f"queue-{number}" for number in range(10)]
_WORKERS, _RUNNERS, _DEAD_LETTERS, _ROUNDS = 50, 1000, 10_000, 20
_JOURNAL_BYTES = 250 * 2**20  # just under the limit, at which each append drops old events
#: Events of one batch of the journal, about the size at which a busy worker ends one; and batches that differ.
_BATCH_EVENTS, _BATCHES = 400, 50


def run(records: int) -> list[Measurement]:
    """Measure every page with `records` records, three in four of them ended."""
    with RedisServer() as server:
        environ = {**os.environ, **local_environment("http://127.0.0.1:9", server.url)}
        with EcsQueue.from_config(environ=environ) as client:
            ids = _fill_ledger(client, records)
            journal_bytes = _fill_journal(environ, ids)
            pages = _pages(client, ids)
        with _web_process(environ) as (process, address):
            filled = Measurement("records, journal", f"{records}, {journal_bytes / 2**20:.0f} MB")
            return [filled, *_measure(process, address, pages)]


def _measure(process: psutil.Process, address: str, pages: dict[str, str]) -> list[Measurement]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    with closing(connection):
        cookie = _log_in(connection, f"{parts.path}?{parts.query}")
        began = time.perf_counter()
        times: dict[str, list[float]] = {name: [] for name in pages}
        used = dict.fromkeys(pages, 0.0)
        resident, charts_after = process.memory_info().rss, 0.0
        for _ in range(_ROUNDS):
            for name, path in pages.items():
                before = _processor_seconds(process)
                times[name].append(_seconds(connection, path, cookie))
                used[name] += _processor_seconds(process) - before if charts_after else 0.0
                resident = max(resident, process.memory_info().rss)
            while not charts_after:
                charts_after = time.perf_counter() - began if _has_charts(connection, cookie) else 0.0
    return [
        Measurement("charts of the last hour, after the first page", f"{charts_after:.1f} s"),
        *(
            Measurement(
                f"{name}, median and slowest of {_ROUNDS}; processor",
                f"{_milliseconds(values)}; {1000 * used[name] / (_ROUNDS - 1):.0f} ms",
                "<= 200 ms",
            )
            for name, values in times.items()
        ),
        Measurement("memory of ecs-queue web, the most of the run", f"{resident / 2**20:.0f} MB", "<= 120 MB"),
    ]


def _processor_seconds(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return float(spent.user + spent.system)


def _milliseconds(values: list[float]) -> str:
    return f"{1000 * median(values):.0f}, {1000 * max(values):.0f} ms"


def _log_in(connection: http.client.HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return (answer.headers["Set-Cookie"] or "").partition(";")[0]


def _seconds(connection: http.client.HTTPConnection, path: str, cookie: str) -> float:
    """The time of one page; a failed one ends the benchmark."""
    start = time.perf_counter()
    connection.request("GET", path, headers={"Cookie": cookie})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}")
    return time.perf_counter() - start


def _has_charts(connection: http.client.HTTPConnection, cookie: str) -> bool:
    """Whether the overview shows them by now: the journal was read."""
    connection.request("GET", "/", headers={"Cookie": cookie})
    return b'<figure class="chart">' in connection.getresponse().read()


def _pages(client: EcsQueue, ids: list[str]) -> dict[str, str]:
    """The name and path of each page. The last filters find nothing: a page then reads as many records as it may."""
    _, second = client.ledger.list_records("", 50)
    (letter, *_) = client.ledger.list_dead_letters(100)[99:]
    return {
        "overview": "/",
        "tasks": "/tasks",
        "tasks, the second page": f"/tasks?after={second}",
        "tasks, filter that finds most": "/tasks?state=QUEUED",
        "tasks, filter that finds none": "/tasks?reason=nothing-like-this",
        "one request": f"/tasks/{ids[0]}",
        "runners": "/runners",
        "runners of a queue": f"/runners?queue={_QUEUES[0]}",
        "dead letters": "/dead",
        "dead letters, the third page": f"/dead?after={letter.key}",
        "journal": "/journal",
    }


def _fill_ledger(client: EcsQueue, records: int) -> list[str]:
    ids: list[str] = []
    for start in range(0, records, 1000):
        size = min(1000, records - start)
        batch = client.submit_many({"command": ["true"], "queue": _QUEUES[n % len(_QUEUES)]} for n in range(size))
        ids += [handle.id for handle in batch]
    for start in range(0, 3 * records // 4, 1000):
        client.ledger.stop(ids[start : min(start + 1000, 3 * records // 4)], "bench")
    for record_id in ids[-_RUNNERS:]:  # each claim waits for the runner that its launch is to start
        client.ledger.claim(record_id, _warm_claim(record_id))
    now = client.ledger.now()
    for number in range(_WORKERS):
        client.ledger.heartbeat(_worker(number, now), 3600)
    for number in range(_DEAD_LETTERS):
        key = dead_letter_key(_QUEUES[0], f"{number:08}")
        client.ledger.add_dead_letter(DeadLetter(key=key, queue=_QUEUES[0], reason="not JSON", body=b"x" * 1000))
    return ids


def _warm_claim(record_id: str) -> ClaimRequest:
    pool = f"{_QUEUES[0]}.0123456789abcdef"
    return ClaimRequest(claim=record_id, worker="worker-00", args="{}", target="here", pool=pool, payload="sealed")


def _worker(number: int, now: float) -> WorkerInfo:
    return WorkerInfo(
        name=f"worker-{number:02}",
        host=f"10.0.0.{number}",
        pid=1,
        version="0.1.0",
        queues=_QUEUES,
        concurrency=32,
        launches_in_progress=3,
        launched_total=1000 * number,
        ended_total=990 * number,
        health="ok",
        started_at=now,
        broker_poll_age=0.1,
        launch_rates=dict.fromkeys(_QUEUES, 0.1),
        end_rates=dict.fromkeys(_QUEUES, 0.1),
    )


def _fill_journal(environ: dict[str, str], ids: list[str]) -> int:
    """Append batches until the journal has its size, and return it. The texts of a few batches come again and again."""
    config = load_config(environ=environ)
    encoder = open_event_encoder(config)
    with closing(open_journal(config)) as journal:
        batches = list(_batches(encoder, ids, journal.now()))
        number = 0
        while journal.size()[1] < _JOURNAL_BYTES:
            number += 1
            events, about = batches[number % len(batches)]
            journal.append(encoder.build_batch("bench", number, "worker-00", events, about))
        return journal.size()[1]


def _batches(encoder: EventEncoder, ids: list[str], now: float) -> Iterator[tuple[list[bytes], list[str]]]:
    """Yield batches of submissions, launches and ends, and the requests they are about.

    A submission has random words, which do not compress well.
    """
    for number in range(_BATCHES):
        about = [ids[(number * _BATCH_EVENTS + n) % len(ids)] for n in range(_BATCH_EVENTS)]
        times = [now - 3600 * n / _BATCH_EVENTS for n in range(_BATCH_EVENTS)]
        yield [_event(encoder, n, at, id) for n, (at, id) in enumerate(zip(times, about, strict=True))], about


def _event(encoder: EventEncoder, number: int, at: float, record_id: str) -> bytes:
    """The events of a batch in turn: two submissions, a launch and an end."""
    names = {"id": record_id, "queue": _QUEUES[0]}
    if number % 4 == 2:
        return encoder.encode(at, "launch.started", {**names, "launch": 1, "arn": "arn", "queued_at": at - number / 40})
    if number % 4 == 3:
        end = {"state": "SUCCESS", "exit_code": 0, "stop_code": "", "attempts": 1, "reason": ""}
        return encoder.encode(at, "request.ended", {**names, **end})
    return encoder.encode(at, "request.submitted", _submission(record_id))


def _submission(record_id: str) -> dict[str, object]:
    envelope = {"v": 1, "id": record_id, "command": ["python", "-m", "job", *(secrets.token_hex(20) for _ in range(5))]}
    names = {"id": record_id, "queue": _QUEUES[0], "owner": "bench", "nonce": record_id, "namespace": "default"}
    return {**names, "envelope": json.dumps(envelope).encode()}


@contextmanager
def _web_process(environ: dict[str, str]) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the process and the address of its log-in, which it prints to stderr."""
    command = [sys.executable, "-m", "ecs_queue", "web", "--port", "0"]
    with ExitStack() as exit_stack:
        process = exit_stack.enter_context(subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True))
        exit_stack.callback(process.terminate)
        assert process.stderr is not None
        address = process.stderr.readline().partition("ecs-queue: ")[2].strip()
        if not address:
            raise RuntimeError("ecs-queue web did not start")
        yield psutil.Process(process.pid), address
