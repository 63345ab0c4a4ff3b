"""How each crash point of the executor is reached. Needs no Airflow itself: the schedulers are processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

from ecs_queue.protocol.record import Record
from tests.airflow.fake_database import FakeDatabase
from tests.crash.harness import TIMEOUT_SECONDS, CrashHarness
from tests.wait import wait_until

#: A scheduler imports all of Airflow, and each test starts two or three. Seconds.
AIRFLOW_TIMEOUT_SECONDS = 3 * TIMEOUT_SECONDS
TASK_NAMES = ("one", "two")
CALLBACK_NAMES = ("callback",)


class SchedulerCrashHarness:
    """One Airflow's database, and schedulers that come and go: jobs 1, 2, ..."""

    def __init__(self, crash: CrashHarness) -> None:
        self.crash = crash
        self.database = FakeDatabase(crash.folder / "commits.jsonl")
        self.started_jobs = 0

    def start_scheduler(self, *names: str, crash_point: str = "", action: str = "run") -> subprocess.Popen[bytes]:
        """Start one, armed for points."""
        self.started_jobs += 1
        command = [sys.executable, "-W", "ignore", "-m", "tests.airflow.fake_scheduler", str(self.database._path)]
        return self.crash.start_process([*command, str(self.started_jobs), action, *names], crash_point)

    def crash_scheduler_at(self, point: str, *names: str, action: str = "run") -> None:
        """A scheduler does, at the point."""
        self.crash.wait_for_crash(
            self.start_scheduler(*names, crash_point=point, action=action), point, AIRFLOW_TIMEOUT_SECONDS
        )

    def owner_of_job(self, job: int) -> str:
        """Of the results of a job."""
        return f"airflow-{job}"

    def list_records(self) -> list[Record]:
        """All that the ledger has."""
        found, after = self.crash.queue.ledger.list_records("", 100)
        while after:
            more, after = self.crash.queue.ledger.list_records(after, 100)
            found += more
        return found


def crash_while_sending(harness: SchedulerCrashHarness, point: str) -> None:
    """No worker has seen them when it dies."""
    harness.crash_scheduler_at(point, *TASK_NAMES)


def crash_while_processing_results(harness: SchedulerCrashHarness, point: str) -> None:
    """With results."""
    harness.crash.start_worker()
    harness.crash_scheduler_at(point, *TASK_NAMES)


def crash_while_revoking(harness: SchedulerCrashHarness, point: str) -> None:
    """They were stuck in queued."""
    harness.crash_scheduler_at(point, *TASK_NAMES, action="revoke")


def kill_scheduler_after_sending(harness: SchedulerCrashHarness, *names: str) -> None:
    """A scheduler is killed with requests whose ids the database has."""
    scheduler = harness.start_scheduler(*names)

    def are_sent() -> bool:
        known = {entry["request"] for entry in harness.database.read_rows().values()}
        return len(known) == len(names) and {record.id for record in harness.list_records()} == known

    wait_until(are_sent, "they are sent", AIRFLOW_TIMEOUT_SECONDS)
    harness.crash.kill(scheduler)


def crash_while_adopting(harness: SchedulerCrashHarness, point: str) -> None:
    kill_scheduler_after_sending(harness, *TASK_NAMES)
    harness.crash_scheduler_at(point)


def crash_while_readopting(harness: SchedulerCrashHarness, point: str) -> None:
    """A fail-over of the ledger loses the adoption."""
    kill_scheduler_after_sending(harness, *TASK_NAMES)
    heir = harness.start_scheduler(crash_point=point)
    crash = harness.crash
    wait_until(
        lambda: {r.owner for r in harness.list_records()} == {harness.owner_of_job(2)},
        "adopted",
        AIRFLOW_TIMEOUT_SECONDS,
    )
    for record in harness.list_records():
        crash.redis.hset(f"{crash.namespace}:l:r:{record.id}", "owner", harness.owner_of_job(1))
    crash.wait_for_crash(heir, point, AIRFLOW_TIMEOUT_SECONDS)


def crash_while_adopting_callback(harness: SchedulerCrashHarness, point: str) -> None:
    """A callback has one id for ever: the next scheduler meets the request of the one before."""
    kill_scheduler_after_sending(harness, *CALLBACK_NAMES)
    harness.crash_scheduler_at(point)


SCENARIOS: Mapping[str, Callable[[SchedulerCrashHarness, str], None]] = {
    "airflow.put": crash_while_sending,
    "airflow.published": crash_while_sending,
    "airflow.accepted": crash_while_sending,
    "airflow.callback_adopted": crash_while_adopting_callback,
    "airflow.drained": crash_while_processing_results,
    "airflow.reported": crash_while_processing_results,
    "airflow.processed": crash_while_processing_results,
    "airflow.confirmed": crash_while_processing_results,
    "airflow.stopped": crash_while_revoking,
    "airflow.adopted": crash_while_adopting,
    "airflow.readopted": crash_while_readopting,
}
