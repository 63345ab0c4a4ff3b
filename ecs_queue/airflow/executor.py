"""`executor = ecs_queue.airflow.executor.EcsQueueExecutor`: Airflow's workloads as requests of ecs-queue.

The scheduler writes its workloads to the ledger, announces them, and takes the results back; it never talks to ECS.
Workers (`ecs-queue worker`) launch and follow the tasks. A ledger or broker that is away delays work and raises
nothing: what it has not accepted stays in Airflow's queue, and is offered again with the very same envelope.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.executors.base_executor import BaseExecutor

from ecs_queue.airflow import event_log, workload_conversion
from ecs_queue.airflow.config import SchedulerTimeouts, load_airflow_config, read_scheduler_timeouts
from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.metrics import ExecutorMetrics
from ecs_queue.airflow.obsolete_requests import ObsoleteRequestStopper
from ecs_queue.airflow.results import ResultProcessor
from ecs_queue.airflow.submission import WorkloadSubmitter
from ecs_queue.airflow.task_instances import find_obsolete, find_unprocessed
from ecs_queue.airflow.tracked_workloads import TrackedWorkload, TrackedWorkloads
from ecs_queue.crash_points import crash_point
from ecs_queue.messages.envelope import TaskResult

if TYPE_CHECKING:
    from ecs_queue.config import Config

#: What one `sync` may take of the scheduler's time. Seconds.
SYNC_BUDGET_SECONDS = 0.5
#: An unexpected error of ours is logged with its trace at most so often. Seconds.
_ERROR_LOG_INTERVAL_SECONDS = 60.0
#: BaseExecutor's places for what waits; later versions of Airflow have one dict of them, `executor_queues`.
_QUEUE_ATTRIBUTES = ("queued_tasks", "queued_callbacks", "queued_connection_tests")


def find_supported_workload_types() -> frozenset[Any]:
    """The kinds of workload that are taken, as Airflow 3.4 asks for them; empty before, where flags say it."""
    try:
        base = import_module("airflow.executors.workloads.base")
    except ImportError:  # 3.1 has it all in one module
        return frozenset()
    kinds = getattr(base, "WorkloadType", None)
    names = ("EXECUTE_TASK", "EXECUTE_CALLBACK", "TEST_CONNECTION")
    return frozenset(getattr(kinds, name) for name in names if hasattr(kinds, name))


class EcsQueueExecutor(BaseExecutor):  # type: ignore[misc]  # Airflow is not there where types are checked
    """See the module's docstring. Constructing it connects to nothing; `start` reads the configuration."""

    supports_callbacks: bool = True
    supports_connection_test: bool = True
    supports_multi_team: bool = True
    supported_workload_types: ClassVar[frozenset[Any]] = find_supported_workload_types()
    pre_assigns_external_executor_id: ClassVar[bool] = True
    supports_sentry: bool = False
    sentry_integration: str = ""
    is_local: bool = False
    is_production: bool = True
    serve_logs: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tracked_workloads = TrackedWorkloads()
        self._error_logged_at = float("-inf")
        self._unsaved_event_logs: list[Any] = []
        #: Tests put others here; the defaults ask Airflow's database.
        self.find_unprocessed: Callable[[Sequence[TrackedWorkload]], set[str]] = find_unprocessed
        self.find_obsolete: Callable[[Sequence[TrackedWorkload]], set[str]] = find_obsolete
        self.metrics = ExecutorMetrics(getattr(self, "team_name", None))

    # What the scheduler calls

    def start(self) -> None:
        """Read the configuration (ConfigError when it is wrong) and, if it says so, look at ledger and broker."""
        config = self.ledger_access.config
        if config.base_profile.check_health_on_startup:
            for complaint in self.ledger_access.find_problems():
                self.log.error("ecs-queue: %s; scheduling starts all the same", complaint)
        self.log.info("ecs-queue: results come to %s", self.ledger_access.owner)

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        """One pipelined write to the ledger and one batch to the broker. What is not accepted stays queued."""
        with self.metrics.timer("submit.duration"):
            self._run_logging_errors(lambda: self._submitter.submit(workload_items))

    def sync(self) -> None:
        """Take results and keep the books in order, for at most about `SYNC_BUDGET` seconds."""
        self._unsaved_event_logs = list(self._task_event_logs)  # those of earlier heartbeats are saved by now
        with self.metrics.timer("sync.duration"):
            self._run_logging_errors(lambda: self._result_processor.run_once(time.monotonic() + SYNC_BUDGET_SECONDS))
            self._run_logging_errors(lambda: self._obsolete_request_stopper.run_once())
        self._run_logging_errors(
            lambda: self.metrics.flush(
                outstanding=len(self._tracked_workloads), unconfirmed_results=len(self._result_processor)
            )
        )

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """See BaseExecutor. Only tasks have an event log, which 3.2 does not ask. The entry is held until it is saved.

        The scheduler hands the entries to SQLAlchemy's bulk_save_objects as a generator, which keeps nothing but weak
        references: with nobody else to hold them they are empty when they are written, and the whole batch fails.
        """
        if not hasattr(ti_key, "dag_id"):
            return
        super().log_task_event(event=event, extra=extra, ti_key=ti_key)
        self._unsaved_event_logs += list(self._task_event_logs)[-1:]

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """From outside (a lost heartbeat, stuck in queued): whatever still runs of it is stopped, too."""
        if remove_running:
            self._untrack_and_stop(key)
        super().change_state(key, state, info, remove_running=remove_running)

    def revoke_task(self, *, ti: Any) -> None:
        """Forget the task and stop its request with the next heartbeat. The scheduler queues it again, under a new id.

        Never raises, and does no I/O: the scheduler holds a database session.
        """
        self._run_logging_errors(lambda: self._revoke(ti))

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Take over tasks of a scheduler that died, with one look at the ledger; returns those it never sent.

        What the ledger knows is adopted, whether it waits, runs, or has ended meanwhile. When the ledger cannot be
        reached all are kept, for nobody can say that they do not run, and it is asked again with later heartbeats.
        """
        try:
            with self.metrics.timer("adopt_task_instances.duration"):
                left = self._adopt(tis)
            self.metrics.incr("adopted", len(tis) - len(left))
            self.metrics.incr("not_adopted", len(left))
            return left
        except Exception:
            self.log.exception("adoption failed; the tasks are left as they are")
            return []

    def fail_connection_test(self, key: Any) -> None:
        """Airflow has given up a connection test."""
        self._untrack_and_stop(key)
        self._remove_from_queues(key)
        self.running.discard(key)

    def end(self) -> None:
        """Say what is still to be said to the ledger. ECS tasks go on, the next scheduler adopts them."""
        if "ledger_access" in self.__dict__:
            self._run_logging_errors(self._result_processor.flush)
            self._run_logging_errors(self.ledger_access.close)

    def terminate(self) -> None:
        """As `end`: a scheduler that is stopped must not stop the jobs."""
        self.end()

    def debug_dump(self) -> None:
        """Airflow's own state, then ours."""
        super().debug_dump()
        for flight in self._tracked_workloads:
            self.log.info(
                "ecs-queue: %s is request %s (accepted=%s)", flight.key, flight.request_id, flight.is_accepted
            )
        if "ledger_access" in self.__dict__:
            self.log.info(
                "ecs-queue: owner %s, %d results told and not confirmed, ledger away=%s, broker away=%s",
                self.ledger_access.owner,
                len(self._result_processor),
                self.ledger_access.ledger_guard.is_backing_off,
                self.ledger_access.broker_guard.is_backing_off,
            )

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """(messages, log lines) of the task's container, while it runs. Needs no `start`."""
        from ecs_queue.airflow.task_log import read_task_log

        del try_number  # the id is of one try
        try:
            return read_task_log(self._load_config(), getattr(ti, "external_executor_id", None))
        except Exception as error:  # noqa: BLE001 - a page that shows why is better than one that fails
            return [f"ecs-queue: the container's log cannot be read: {type(error).__name__}: {error}"], []

    @staticmethod
    def get_cli_commands() -> list[Any]:
        """`airflow ecs-queue ...`: the commands of `ecs-queue`."""
        from ecs_queue.airflow.cli import get_cli_commands

        return get_cli_commands()

    # What intake and returns ask for

    def workload_key(self, workload: Any) -> Any:
        """Airflow's key of a workload: what it is queued under."""
        task = getattr(workload, "ti", None)
        return workload_conversion.non_task_key(workload) if task is None else self._task_key(task)

    def mark_accepted(self, tracked: TrackedWorkload) -> None:
        """It is the ledger's now."""
        self.metrics.incr("submitted")
        self._remove_from_queues(tracked.key)
        self.running.add(tracked.key)
        if tracked.id_generated and tracked.task_instance_id is not None:
            self._buffer_event(tracked.key, "QUEUED", tracked.request_id)
        crash_point("airflow.accepted")

    def reject(self, key: Hashable, reason: str) -> None:
        """It can never run: it fails, alone."""
        self.metrics.incr("rejected")
        self._remove_from_queues(key)
        self.log_task_event(event=event_log.EVENT_REJECTED, extra=reason, ti_key=key)
        self.fail(key, f"ecs-queue rejected it: {reason}")

    def report_result(self, tracked: TrackedWorkload, result: TaskResult, *, is_first: bool) -> None:
        """How a request ended, to the scheduler and to the task's event log."""
        key: Any = tracked.key
        if is_first:
            self.metrics.incr("results", state=result.state)
            event, text = event_log.format_event(result)
            self.log_task_event(event=event, extra=text, ti_key=key)
        else:
            self.metrics.incr("results_repeated")
        (self.success if result.succeeded else self.fail)(key, event_log.format_info(result))
        crash_point("airflow.reported")

    def withhold_result(self, tracked: TrackedWorkload, result: TaskResult) -> None:
        """It never started: Airflow queues it again, and it uses up no try of the task's."""
        self.metrics.incr("expired")
        event, text = event_log.format_expiry_event(result)
        self.log_task_event(event=event, extra=text, ti_key=tracked.key)
        self.running.discard(tracked.key)

    def is_event_collected(self, key: Hashable) -> bool:
        """Whether the scheduler has collected the key's event."""
        return key not in self.event_buffer

    def mark_lost(self, tracked: TrackedWorkload) -> None:
        """Another scheduler has it, or the ledger has lost it: Airflow's own time-outs decide."""
        self.metrics.incr("lost")
        self.log.warning("ecs-queue: request %s of %s is no longer this scheduler's", tracked.request_id, tracked.key)
        self.running.discard(tracked.key)

    def resend(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """The ledger has lost what was put in its last second."""
        self.metrics.incr("resent", len(tracked_workloads))
        self._submitter.resend(tracked_workloads)

    # What leftovers ask for

    def list_unsent(self) -> list[TrackedWorkload]:
        """Tasks that wait in this executor: the ledger is away, or their tokens have expired."""
        waiting = [
            (self.workload_key(workload), workload) for queue in self._airflow_queues() for workload in queue.values()
        ]
        return [
            self._tracked_workloads.get_by_key(key)
            or TrackedWorkload(key, f"unsent {workload.ti.id}", task_instance_id=str(workload.ti.id), id_generated=True)
            for key, workload in waiting
            if getattr(workload, "ti", None) is not None
        ]

    def withdraw(self, tracked: TrackedWorkload) -> None:
        """Airflow does not wait for it any more, and its container has not run."""
        self.metrics.incr("withdrawn")
        self.log.info(
            "ecs-queue: %s is taken back, no task waits for request %s any more", tracked.key, tracked.request_id
        )
        self.log_task_event(
            event=event_log.EVENT_STOPPED, extra=event_log.format_withdrawal(tracked.request_id), ti_key=tracked.key
        )
        self._remove_from_queues(tracked.key)
        self.running.discard(tracked.key)
        self._untrack_and_stop(tracked.key)

    def stop_running(self, tracked: TrackedWorkload) -> None:
        """Its container should have ended itself when Airflow told it so; its end is told as usual."""
        self.metrics.incr("stopped")
        self.log.warning(
            "ecs-queue: stopping request %s, no task waits for it any more: %s", tracked.request_id, tracked.key
        )
        self._result_processor.request_stop(tracked.request_id)

    # Ourselves

    @cached_property
    def ledger_access(self) -> LedgerAccess:
        """Access to ledger and broker, for this scheduler job's results. No connection is made yet."""
        return LedgerAccess.open(self._load_config(), self._build_owner_name(), self.log, self.count_failure)

    def count_failure(self, server: str) -> None:
        """A call of `ledger` or `broker` failed."""
        self.metrics.incr(f"{server}_unavailable")

    @cached_property
    def _submitter(self) -> WorkloadSubmitter:
        return WorkloadSubmitter(self.ledger_access, self._tracked_workloads, self, self.log)

    @cached_property
    def _result_processor(self) -> ResultProcessor:
        hold = self._scheduler_timeouts.requeue
        return ResultProcessor(
            self.ledger_access, self._tracked_workloads, self, lambda flights: self.find_unprocessed(flights), hold
        )

    @cached_property
    def _obsolete_request_stopper(self) -> ObsoleteRequestStopper:
        patience = self._scheduler_timeouts.task_heartbeat
        return ObsoleteRequestStopper(
            self.ledger_access, self._tracked_workloads, self, lambda flights: self.find_obsolete(flights), patience
        )

    @cached_property
    def _scheduler_timeouts(self) -> SchedulerTimeouts:
        from airflow.configuration import conf

        return read_scheduler_timeouts(conf)

    def _load_config(self) -> Config:
        from airflow.configuration import conf

        return load_airflow_config(self.conf, conf.sections(), team=self.team_name)

    def _build_owner_name(self) -> str:
        """Of this job alone: two schedulers, teams or executors never take each other's results."""
        job = secrets.token_hex(6) if self.job_id is None else str(self.job_id)
        parts = ["airflow", job, self.team_name or "", getattr(self.name, "alias", None) or ""]
        return re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(part for part in parts if part))[:64]

    def _task_key(self, ti: Any) -> Any:
        of_version = getattr(self, "get_task_key", None)  # Airflow 3.4
        return ti.key if of_version is None else of_version(ti)

    def _airflow_queues(self) -> list[dict[Any, Any]]:
        later = getattr(self, "executor_queues", None)  # Airflow 3.4, whose three old names may be views of them
        return [getattr(self, name, {}) for name in _QUEUE_ATTRIBUTES] if later is None else list(later.values())

    def _remove_from_queues(self, key: Any) -> None:
        for queue in self._airflow_queues():
            queue.pop(key, None)

    def _untrack_and_stop(self, key: Any) -> None:
        """Whatever request the key still has is to be stopped."""
        flight = self._tracked_workloads.drop(key)
        if flight is not None:
            self._result_processor.request_stop(flight.request_id)

    def _buffer_event(self, key: Any, state: str, info: str) -> None:
        from airflow.utils.state import TaskInstanceState

        super().change_state(key, TaskInstanceState[state], info, remove_running=False)

    def _revoke(self, ti: Any) -> None:
        self.metrics.incr("revoked")
        key = self._task_key(ti)
        self._remove_from_queues(key)
        self.running.discard(key)
        self._untrack_and_stop(key)
        known = workload_conversion.validate_request_id(getattr(ti, "external_executor_id", None))
        if known is not None:  # also when this process never heard of it
            self._result_processor.request_stop(known)

    def _adopt(self, tis: Sequence[Any]) -> Sequence[Any]:
        wanted = {
            request_id: ti
            for ti in tis
            if (request_id := workload_conversion.validate_request_id(ti.external_executor_id))
        }
        unknown = [ti for ti in tis if workload_conversion.validate_request_id(ti.external_executor_id) is None]
        flights = [
            TrackedWorkload(self._task_key(ti), request_id, task_instance_id=str(ti.id), is_accepted=True)
            for request_id, ti in wanted.items()
        ]
        records = self.ledger_access.get_records([flight.request_id for flight in flights])
        adopted = None if records is None else self._result_processor.adopt(flights, records)
        for flight in flights:
            flight.adoption_pending = adopted is None
            if adopted is None or flight.request_id in adopted:
                self._tracked_workloads.add(flight)
                self.running.add(flight.key)
            else:
                self._result_processor.request_stop(
                    flight.request_id
                )  # should its message still come, it is not launched beside the new
                unknown.append(wanted[flight.request_id])
        return unknown

    def _run_logging_errors(self, action: Callable[[], None]) -> None:
        """An exception here would end the scheduler, whatever it is."""
        try:
            action()
        except Exception:
            self.metrics.incr("errors")
            if time.monotonic() - self._error_logged_at >= _ERROR_LOG_INTERVAL_SECONDS:
                self._error_logged_at = time.monotonic()
                self.log.exception("ecs-queue: an unexpected error; scheduling goes on")
