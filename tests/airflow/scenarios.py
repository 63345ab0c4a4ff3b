"""How each crash point of the executor is reached. Needs no Airflow itself: the schedulers are processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

from ecs_queue.core.record import Record
from tests.airflow.book import Book
from tests.crash.bench import PATIENCE, Bench
from tests.system.processes import wait_for

#: A scheduler imports all of Airflow, and each test starts two or three. Seconds.
AIRFLOW_PATIENCE = 3 * PATIENCE
NAMES = ("one", "two")
CALLBACK = ("callback",)


class Airflow:
    """One Airflow's database, and schedulers that come and go: jobs 1, 2, ..."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.book = Book(bench.folder / "book.jsonl")
        self.jobs = 0

    def scheduler(self, *names: str, armed: str = "", act: str = "run") -> subprocess.Popen[bytes]:
        """Start one, armed for points."""
        self.jobs += 1
        command = [sys.executable, "-W", "ignore", "-m", "tests.airflow.scheduler", str(self.book._path)]
        return self.bench.process([*command, str(self.jobs), act, *names], armed)

    def dies(self, point: str, *names: str, act: str = "run") -> None:
        """A scheduler does, at the point."""
        self.bench.dies(self.scheduler(*names, armed=point, act=act), point, AIRFLOW_PATIENCE)

    def owner(self, job: int) -> str:
        """Of the results of a job."""
        return f"airflow-{job}"

    def records(self) -> list[Record]:
        """All that the ledger has."""
        found, after = self.bench.queue.ledger.page("", 100)
        while after:
            more, after = self.bench.queue.ledger.page(after, 100)
            found += more
        return found


def sent(airflow: Airflow, point: str) -> None:
    """No worker has seen them when it dies."""
    airflow.dies(point, *NAMES)


def ended(airflow: Airflow, point: str) -> None:
    """With results."""
    airflow.bench.worker()
    airflow.dies(point, *NAMES)


def taken_back(airflow: Airflow, point: str) -> None:
    """They were stuck in queued."""
    airflow.dies(point, *NAMES, act="revoke")


def left_behind(airflow: Airflow, *names: str) -> None:
    """A scheduler is killed with requests whose ids the database has."""
    scheduler = airflow.scheduler(*names)

    def are_sent() -> bool:
        known = {entry["request"] for entry in airflow.book.entries().values()}
        return len(known) == len(names) and {record.id for record in airflow.records()} == known

    wait_for(are_sent, AIRFLOW_PATIENCE, "they are sent")
    airflow.bench.kill(scheduler)


def adopted(airflow: Airflow, point: str) -> None:
    left_behind(airflow, *NAMES)
    airflow.dies(point)


def adopted_and_forgotten(airflow: Airflow, point: str) -> None:
    """A fail-over of the ledger loses the adoption."""
    left_behind(airflow, *NAMES)
    heir = airflow.scheduler(armed=point)
    bench = airflow.bench
    wait_for(lambda: {r.owner for r in airflow.records()} == {airflow.owner(2)}, AIRFLOW_PATIENCE, "adopted")
    for record in airflow.records():
        bench.redis.hset(f"{bench.namespace}:l:r:{record.id}", "owner", airflow.owner(1))
    bench.dies(heir, point, AIRFLOW_PATIENCE)


def called_back(airflow: Airflow, point: str) -> None:
    """A callback has one id for ever: the next scheduler meets the request of the one before."""
    left_behind(airflow, *CALLBACK)
    airflow.dies(point)


SCENARIOS: Mapping[str, Callable[[Airflow, str], None]] = {
    "airflow.put": sent,
    "airflow.published": sent,
    "airflow.taken_off": sent,
    "airflow.taken_over": called_back,
    "airflow.drained": ended,
    "airflow.told": ended,
    "airflow.taken_in": ended,
    "airflow.confirmed": ended,
    "airflow.stopped": taken_back,
    "airflow.adopted": adopted,
    "airflow.regained": adopted_and_forgotten,
}
