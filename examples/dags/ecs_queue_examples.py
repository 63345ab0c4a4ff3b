"""Example DAGs for ecs-queue. They need nothing special; `executor_config` and `queue` are optional."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, task

try:
    from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback
except ImportError:  # callbacks run on executors since Airflow 3.2
    SyncCallback = None


@dag(schedule=None, tags=["ecs-queue"])
def chain():
    """Three tasks, one after the other, that pass a value on."""

    @task
    def extract() -> int:
        return 20

    @task
    def transform(number: int) -> int:
        return number * 2 + 2

    @task
    def load(number: int) -> None:
        print(f"the answer is {number}")
        assert number == 42

    load(transform(extract()))


@dag(schedule=None, tags=["ecs-queue"])
def mapped():
    """Twenty containers at once."""

    @task
    def square(number: int) -> int:
        return number * number

    square.expand(number=list(range(20)))


@dag(schedule=None, tags=["ecs-queue"])
def retried():
    """Fails the first time; Airflow's own retry succeeds."""

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def flaky() -> None:
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("the first try fails on purpose")

    flaky()


@dag(schedule=None, tags=["ecs-queue"])
def configured():
    """A task with more memory and an additional variable."""

    @task(
        executor_config={
            "memory": 2048,
            "environment": [{"name": "GREETING", "value": "hello"}],
        }
    )
    def greet() -> None:
        assert os.environ["GREETING"] == "hello"
        assert os.environ["AIRFLOW_IS_EXECUTOR_CONTAINER"] == "true"

    greet()


class DeferringOperator(BaseOperator):
    """Gives its container back while it waits, and continues in another one."""

    def execute(self, context):  # noqa: ARG002
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=2)), method_name="execute_complete")

    def execute_complete(self, context, event=None):  # noqa: ARG002
        return "waited"


@dag(schedule=None, tags=["ecs-queue"])
def deferred():
    """A task that defers itself."""
    DeferringOperator(task_id="wait")


chain()
mapped()
retried()
configured()
deferred()


def report_missed_deadline(context, limit_seconds: int) -> None:
    """Runs in a container of its own when a run has missed its deadline."""
    print(f"{context['dag_run']['dag_id']} has not ended in {limit_seconds} s")


if SyncCallback is not None:

    @dag(
        schedule=None,
        tags=["ecs-queue"],
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=1),
            callback=SyncCallback(report_missed_deadline, kwargs={"limit_seconds": 1}),
        ),
    )
    def with_deadline():
        """Misses its deadline, so its callback runs in another container."""

        @task
        def take_long() -> None:
            time.sleep(3)

        take_long()

    with_deadline()
