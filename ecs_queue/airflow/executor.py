"""`executor = ecs_queue.airflow.executor.EcsQueueExecutor`: runs Airflow's workloads as requests of ecs-queue.

The scheduler writes its workloads to the ledger, publishes them, and receives the results; it never calls ECS.
Workers (`ecs-queue worker`) launch and track the tasks. An unavailable ledger or broker delays work and raises
nothing: a workload that the ledger has not accepted stays in Airflow's queue, and is sent again with the same envelope.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.configuration import AIRFLOW_CONFIG, conf
from airflow.utils.state import TaskInstanceState

from ecs_queue.airflow import event_log
from ecs_queue.airflow.config import AirflowSources, build_owner_name, load_executor_config, read_scheduler_timeouts
from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.obsolete_requests import ObsoleteRequestStopper
from ecs_queue.airflow.portable_executor import PortableExecutor
from ecs_queue.airflow.results import ResultProcessor
from ecs_queue.airflow.submission import WorkloadSubmitter
from ecs_queue.airflow.task_instances import find_obsolete, find_other_ids, query_standings
from ecs_queue.airflow.tracked_workloads import TrackedWorkload, TrackedWorkloads
from ecs_queue.airflow.workload_conversion import (
    copy_without_request_id,
    non_task_key,
    read_shared_settings,
    validate_request_id,
)
from ecs_queue.crash_points import crash_point
from ecs_queue.error_text import error_text, traceback_text, typed_error_text
from ecs_queue.errors import ConfigError
from ecs_queue.messages.result import TaskResult

if TYPE_CHECKING:
    from ecs_queue.config import Config

#: The time of the scheduler that one `sync` may take.
SYNC_BUDGET_SECONDS = 0.5


class EcsQueueExecutor(PortableExecutor):
    """Runs Airflow's workloads on Amazon ECS, see the module's docstring.

    The constructor makes no connection; `start` reads the configuration.

    Attributes:
        problem: Why nothing can be sent, as a sentence; None when the configuration is right. Tasks then stay queued,
            and their event logs have the sentence.
    """

    supports_multi_team: bool = True
    pre_assigns_external_executor_id: ClassVar[bool] = True
    supports_sentry: bool = False
    sentry_integration: str = ""
    is_local: bool = False
    is_production: bool = True
    serve_logs: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tracked_workloads = TrackedWorkloads()
        self._held_keys: set[Any] = set()
        self._requeued_ids: dict[Any, str] = {}  # key -> the lost request
        self.problem: str | None = None

    # What the scheduler calls

    def start(self) -> None:
        """Read the configuration and, with `check_health_on_startup`, check the ledger and the broker.

        Never raises: the scheduler, which also serves other executors, would end.
        """
        try:
            access = self.ledger_access
        except Exception as error:  # noqa: BLE001 - whatever a library makes of the settings
            mistake = error_text(error) if isinstance(error, ConfigError) else typed_error_text(error)
            remedy = "no task is sent until the configuration is corrected and the scheduler restarted"
            self.problem = f"{remedy}: {mistake}"
            self.log.error("ecs-queue: %s", self.problem)
            return
        if access.config.base_profile.check_health_on_startup:
            self.run_logging_errors(access.log_findings)
        self.log.info("ecs-queue: the owner of this scheduler's requests is %s", access.owner)

    def heartbeat(self) -> None:
        """Submit what Airflow has queued, and `sync`. The journal's thread, which takes the GIL, waits for the end."""
        access = self.__dict__.get("ledger_access")  # `start` has made it, unless the configuration is wrong
        with nullcontext() if access is None else access.pause_journal():
            super().heartbeat()

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        """Write the workloads to the ledger and publish them, in batches. Those not accepted stay queued."""
        if self.problem is not None:
            for workload in workload_items:
                self.hold(self.workload_key(workload), self.problem)
            return
        with self.metrics.timer("submit.duration"):
            self.run_logging_errors(lambda: self._submitter.submit(workload_items))

    def sync(self) -> None:
        """Receive results and compare with the ledger and the database, for about `SYNC_BUDGET_SECONDS` at most."""
        self.forget_saved_event_logs()
        if self._held_keys or self._requeued_ids:
            queued = {key for queue in self.airflow_queues() for key in queue}
            self._held_keys &= queued
            live = queued | self.running
            self._requeued_ids = {key: name for key, name in self._requeued_ids.items() if key in live}
        if self.problem is not None:
            self.metrics.incr("errors")
            self.run_logging_errors(self.metrics.flush)
            return
        with self.metrics.timer("sync.duration"):
            self.run_logging_errors(lambda: self._result_processor.run_once(time.monotonic() + SYNC_BUDGET_SECONDS))
            self.run_logging_errors(lambda: self._obsolete_request_stopper.run_once())
        self.run_logging_errors(
            lambda: self.metrics.flush(
                outstanding=len(self._tracked_workloads), unconfirmed_results=len(self._result_processor)
            )
        )

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Change a workload's state. When Airflow ends it (heartbeat lost, stuck in queued), its request is stopped."""
        if remove_running:
            self._untrack_and_stop(key)
        super().change_state(key, state, info, remove_running=remove_running)

    def revoke_task(self, *, ti: Any) -> None:
        """Forget the task; its request is stopped in the next heartbeat. Airflow queues the task again under a new id.

        Never raises and does no I/O: the scheduler holds a database session.
        """
        self.run_logging_errors(lambda: self._revoke(ti))

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Adopt the tasks of a scheduler that died, with one read of the ledger.

        A request that the ledger knows is adopted in any state: waiting, running or ended. When the ledger is
        unavailable all tasks are kept, because they may be running; later heartbeats complete the adoption.

        Returns:
            The tasks that were never sent; Airflow queues them again.
        """
        if self.problem is not None:
            return []  # a restarted scheduler adopts them
        try:
            with self.metrics.timer("adopt_task_instances.duration"):
                not_adopted = self._adopt(tis)
            self.metrics.incr("adopted", len(tis) - len(not_adopted))
            self.metrics.incr("not_adopted", len(not_adopted))
            return not_adopted
        except Exception as error:  # noqa: BLE001 - the scheduler would end with it
            self.log.error("ecs-queue: adoption failed; the tasks stay as they are: %s", traceback_text(error))
            return []

    def fail_connection_test(self, key: Any) -> None:
        """Stop a connection test that Airflow has given up."""
        self._untrack_and_stop(key)
        self.remove_from_queues(key)
        self.running.discard(key)

    def end(self) -> None:
        """Send pending stops and confirmations, and disconnect. The next scheduler adopts the ECS tasks."""
        if "ledger_access" in self.__dict__:
            self.run_logging_errors(self._result_processor.flush)
            self.run_logging_errors(self.ledger_access.close)

    def terminate(self) -> None:
        """As `end`: stopping the scheduler must not stop its tasks."""
        self.end()

    def debug_dump(self) -> None:
        """Log Airflow's own state and the requests of this executor."""
        super().debug_dump()
        if self.problem is not None:
            self.log.info("ecs-queue: %s", self.problem)
        for tracked in self._tracked_workloads:
            self.log.info(
                "ecs-queue: %s is request %s (accepted=%s)", tracked.key, tracked.request_id, tracked.is_accepted
            )
        if "ledger_access" in self.__dict__:
            self.log.info(
                "ecs-queue: owner %s, %d unconfirmed results, ledger backing off=%s, broker backing off=%s",
                self.ledger_access.owner,
                len(self._result_processor),
                self.ledger_access.ledger_guard.is_backing_off,
                self.ledger_access.broker_guard.is_backing_off,
            )

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """Return (messages, log lines) of the task's container while it runs. Works without `start`."""
        from ecs_queue.airflow.task_log import read_task_log

        del try_number  # the request id belongs to one try
        try:
            return read_task_log(self._load_config(), getattr(ti, "external_executor_id", None))
        except Exception as error:  # noqa: BLE001 - a page that shows the error is better than one that fails
            return [f"ecs-queue: the container's log cannot be read: {typed_error_text(error)}"], []

    @staticmethod
    def get_cli_commands() -> list[Any]:
        """Return the commands of `airflow ecs-queue ...`."""
        from ecs_queue.airflow.cli import get_cli_commands

        return get_cli_commands()

    # ExecutorDelegate: see delegate.py for what each method means

    def workload_key(self, workload: Any) -> Any:
        """See ExecutorDelegate."""
        task = getattr(workload, "ti", None)
        return non_task_key(workload) if task is None else self.task_key(task)

    def mark_accepted(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """See ExecutorDelegate. Reports generated ids to Airflow."""
        self.metrics.incr("submitted", len(tracked_workloads))
        keys = [tracked.key for tracked in tracked_workloads]
        self.remove_from_queues(*keys)
        self.running.update(keys)
        for tracked in tracked_workloads:
            if tracked.id_generated and tracked.task_instance_id is not None:
                self._report_id(tracked)
            crash_point("airflow.accepted")

    def report_id_again(self, tracked: TrackedWorkload, stored_id: str | None) -> None:
        """See ExecutorDelegate."""
        if stored_id in (None, tracked.assigned_id, self._requeued_ids.get(tracked.key)):
            self._report_id(tracked)

    def reject(self, key: Hashable, reason: str) -> None:
        """See ExecutorDelegate."""
        self.metrics.incr("rejected")
        self.remove_from_queues(key)
        self.log_task_event(event=event_log.EVENT_REJECTED, extra=reason, ti_key=key)
        self.fail(key, f"ecs-queue rejected it: {reason}")

    def hold(self, key: Hashable, reason: str) -> None:
        """See ExecutorDelegate."""
        if key not in self._held_keys:
            self._held_keys.add(key)
            self.log_task_event(event=event_log.EVENT_HELD, extra=reason, ti_key=key)

    def report_result(self, tracked: TrackedWorkload, result: TaskResult, *, is_first: bool, never_ran: bool) -> None:
        """See ExecutorDelegate."""
        if is_first:
            self.metrics.incr("results", state=result.state)
            self._log_event(tracked, event_log.format_event(result, never_ran=never_ran))
        else:
            self.metrics.incr("results_repeated")
        info = event_log.format_info(result, never_ran=never_ran)
        (self.success if result.succeeded else self.fail)(tracked.key, info)
        crash_point("airflow.reported")

    def discard_result(self, tracked: TrackedWorkload, result: TaskResult) -> None:
        """See ExecutorDelegate."""
        self.metrics.incr("results_discarded")
        self._log_event(tracked, event_log.format_event(result))
        if self._tracked_workloads.get_by_key(tracked.key) is None:
            self.running.discard(tracked.key)

    def requeue(self, tracked: TrackedWorkload, result: TaskResult) -> bool:
        """See ExecutorDelegate. The rule is that of Airflow's KubernetesExecutor."""
        if tracked.workload is None or tracked.key in self._requeued_ids:
            return False
        self.metrics.incr("requeued")
        self._log_event(tracked, event_log.format_requeue_event(result))
        self._requeued_ids[tracked.key] = tracked.request_id
        self.running.discard(tracked.key)
        self.queue_workload(copy_without_request_id(tracked.workload), session=None)
        return True

    def withhold_result(self, tracked: TrackedWorkload, result: TaskResult) -> None:
        """See ExecutorDelegate. Uses up none of the task's tries."""
        self.metrics.incr("expired")
        self._log_event(tracked, event_log.format_expiry_event(result))
        self.running.discard(tracked.key)

    def is_event_collected(self, key: Hashable) -> bool:
        """See ExecutorDelegate."""
        return key not in self.event_buffer

    def mark_lost(self, tracked: TrackedWorkload) -> None:
        """See ExecutorDelegate."""
        self.metrics.incr("lost")
        self.log.warning("ecs-queue: request %s of %s is no longer this scheduler's", tracked.request_id, tracked.key)
        self.running.discard(tracked.key)

    def resend(self, tracked: Sequence[TrackedWorkload]) -> None:
        """See ExecutorDelegate."""
        self.metrics.incr("resent", len(tracked))
        self._submitter.resend(tracked)

    def list_unsent(self) -> list[TrackedWorkload]:
        """See ExecutorDelegate."""
        queued = [workload for queue in self.airflow_queues() for workload in queue.values()]
        return [
            self._tracked_workloads.get_by_key(key)
            or TrackedWorkload(key, f"unsent {task.id}", task_instance_id=str(task.id), id_generated=True)
            for task in (getattr(workload, "ti", None) for workload in queued)
            if task is not None
            for key in [self.task_key(task)]
        ]

    def withdraw(self, tracked: TrackedWorkload) -> None:
        """See ExecutorDelegate."""
        self.metrics.incr("withdrawn")
        self.log.info(
            "ecs-queue: request %s is withdrawn, because %s no longer waits for it", tracked.request_id, tracked.key
        )
        self._log_event(tracked, event_log.format_withdrawal_event(tracked.request_id))
        self.remove_from_queues(tracked.key)
        self.running.discard(tracked.key)
        self._untrack_and_stop(tracked.key)

    def stop_running(self, tracked: TrackedWorkload) -> None:
        """See ExecutorDelegate. Airflow should have made the container end itself by now."""
        self.metrics.incr("stopped")
        self.log.warning(
            "ecs-queue: request %s is being stopped, because %s no longer waits for it", tracked.request_id, tracked.key
        )
        self._result_processor.request_stop(tracked.request_id)

    # The parts

    @cached_property
    def ledger_access(self) -> LedgerAccess:
        """The ledger and the broker, for the requests of this scheduler job. Making it opens no connection."""
        config = self._load_config()
        return LedgerAccess.open(
            config,
            build_owner_name(self, config.owner_prefix),
            self.log,
            lambda server: self.metrics.incr(f"{server}_unavailable"),
        )

    @cached_property
    def _submitter(self) -> WorkloadSubmitter:
        settings = read_shared_settings(conf)
        return WorkloadSubmitter(self.ledger_access, self._tracked_workloads, self, self.log, settings)

    @cached_property
    def _result_processor(self) -> ResultProcessor:
        withhold_seconds = read_scheduler_timeouts(conf).requeue
        return ResultProcessor(self.ledger_access, self._tracked_workloads, self, query_standings, withhold_seconds)

    @cached_property
    def _obsolete_request_stopper(self) -> ObsoleteRequestStopper:
        stop_after = read_scheduler_timeouts(conf).task_heartbeat
        return ObsoleteRequestStopper(
            self.ledger_access, self._tracked_workloads, self, find_obsolete, find_other_ids, stop_after
        )

    def _load_config(self) -> Config:
        return load_executor_config(AirflowSources(conf, AIRFLOW_CONFIG, self.team_name))

    # Airflow's state

    def _untrack_and_stop(self, key: Any) -> None:
        tracked = self._tracked_workloads.drop(key)
        if tracked is not None:
            self._request_stop(tracked.request_id)

    def _request_stop(self, request_id: str) -> None:
        if self.problem is None:
            self._result_processor.request_stop(request_id)

    def _report_id(self, tracked: TrackedWorkload) -> None:
        super().change_state(tracked.key, TaskInstanceState.QUEUED, tracked.request_id, remove_running=False)

    def _log_event(self, tracked: TrackedWorkload, event: tuple[str, str]) -> None:
        self.log_task_event(event=event[0], extra=event[1], ti_key=tracked.key)

    def _revoke(self, ti: Any) -> None:
        self.metrics.incr("revoked")
        key = self.task_key(ti)
        self.remove_from_queues(key)
        self.running.discard(key)
        self._untrack_and_stop(key)
        request_id = validate_request_id(getattr(ti, "external_executor_id", None))
        if request_id is not None:  # also when another process submitted it
            self._request_stop(request_id)

    def _adopt(self, tis: Sequence[Any]) -> Sequence[Any]:
        not_adopted = [ti for ti in tis if validate_request_id(ti.external_executor_id) is None]
        instances = {request_id: ti for ti in tis if (request_id := validate_request_id(ti.external_executor_id))}
        candidates = [
            TrackedWorkload(self.task_key(ti), request_id, task_instance_id=str(ti.id), is_accepted=True)
            for request_id, ti in instances.items()
        ]
        records = self.ledger_access.get_records(list(instances))
        adopted = None if records is None else self._result_processor.adopt(candidates, records)
        for tracked in candidates:
            tracked.adoption_pending = adopted is None
            if adopted is None or tracked.request_id in adopted:
                self._tracked_workloads.add(tracked)
                self.running.add(tracked.key)
            else:  # should its message still arrive, it must not be launched beside the new request
                self._result_processor.request_stop(tracked.request_id)
                not_adopted.append(instances[tracked.request_id])
        return not_adopted
