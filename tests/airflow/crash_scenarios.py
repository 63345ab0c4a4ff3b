"""How each crash point of the executor is reached. Needs no Airflow itself: the schedulers are processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

from ecs_queue.protocol.record import Record
from ecs_queue.server_keys import ledger_prefix
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
        """Start a scheduler; it crashes at the named points."""
        self.started_jobs += 1
        command = [sys.executable, "-W", "ignore", "-m", "tests.airflow.fake_scheduler", str(self.database._path)]
        return self.crash.start_process([*command, str(self.started_jobs), action, *names], crash_point)

    def crash_scheduler_at(self, point: str, *names: str, action: str = "run") -> None:
        """Start a scheduler and wait until it has crashed at the point."""
        self.crash.wait_for_crash(
            self.start_scheduler(*names, crash_point=point, action=action), point, AIRFLOW_TIMEOUT_SECONDS
        )

    def owner_of_job(self, job: int) -> str:
        """Return the owner of a job's requests."""
        return f"airflow-{job}"

    def list_records(self) -> list[Record]:
        """Return all records of the ledger."""
        found, after = self.crash.queue.ledger.list_records("", 100)
        while after:
            more, after = self.crash.queue.ledger.list_records(after, 100)
            found += more
        return found


def crash_while_sending(harness: SchedulerCrashHarness, point: str) -> None:
    """The scheduler dies before a worker has received the requests."""
    harness.crash_scheduler_at(point, *TASK_NAMES)


def crash_while_processing_results(harness: SchedulerCrashHarness, point: str) -> None:
    """The scheduler dies while it processes the results."""
    harness.crash.start_worker()
    harness.crash_scheduler_at(point, *TASK_NAMES)


def crash_while_revoking(harness: SchedulerCrashHarness, point: str) -> None:
    """The scheduler dies while it revokes tasks that were stuck in queued."""
    harness.crash_scheduler_at(point, *TASK_NAMES, action="revoke")


def kill_scheduler_after_sending(harness: SchedulerCrashHarness, *names: str) -> None:
    """Kill a scheduler after it has sent requests whose ids are in the database."""
    scheduler = harness.start_scheduler(*names)

    def are_sent() -> bool:
        ids = {row["request"] for row in harness.database.read_rows().values()}
        return len(ids) == len(names) and {record.id for record in harness.list_records()} == ids

    wait_until(are_sent, "the requests are sent", AIRFLOW_TIMEOUT_SECONDS)
    harness.crash.kill(scheduler)


def crash_while_adopting(harness: SchedulerCrashHarness, point: str) -> None:
    kill_scheduler_after_sending(harness, *TASK_NAMES)
    harness.crash_scheduler_at(point)


def crash_while_readopting(harness: SchedulerCrashHarness, point: str) -> None:
    """The ledger loses the adoption in a fail-over; the scheduler dies while it adopts again."""
    kill_scheduler_after_sending(harness, *TASK_NAMES)
    next_scheduler = harness.start_scheduler(crash_point=point)
    crash = harness.crash
    wait_until(
        lambda: {r.owner for r in harness.list_records()} == {harness.owner_of_job(2)},
        "the adoption",
        AIRFLOW_TIMEOUT_SECONDS,
    )
    for record in harness.list_records():
        crash.redis.hset(f"{ledger_prefix(crash.namespace)}r:{record.id}", "owner", harness.owner_of_job(1))
    crash.wait_for_crash(next_scheduler, point, AIRFLOW_TIMEOUT_SECONDS)


def crash_while_adopting_callback(harness: SchedulerCrashHarness, point: str) -> None:
    """A callback keeps one id: the next scheduler finds the earlier scheduler's request."""
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
