"""Submits workloads: makes requests of them, puts them into the ledger, and publishes them."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from itertools import islice
from typing import Any

from ecs_queue.airflow.config import resolve_queue
from ecs_queue.airflow.delegate import ExecutorDelegate
from ecs_queue.airflow.ledger_access import SEND_BATCH_SIZE, LedgerAccess
from ecs_queue.airflow.tracked_workloads import TrackedWorkload, TrackedWorkloads
from ecs_queue.airflow.workload_conversion import (
    HIGHEST_PRIORITY,
    add_container_variables,
    build_command,
    build_container_variables,
    convert_priority,
    read_labels,
    read_token_expiry,
    read_traceparent,
    split_executor_config,
    validate_request_id,
)
from ecs_queue.config.model import DEFAULT_QUEUE
from ecs_queue.crash_points import crash_point
from ecs_queue.error_text import traceback_text, typed_error_text
from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.protocol.operations import OperationResult, ResultCode

#: Who submits, unless the configuration has another name.
_EXECUTOR_NAME = "EcsQueueExecutor"
#: A task whose token expires sooner is not sent: Airflow queues it again with a new token.
_MIN_TOKEN_LIFETIME_SECONDS = 1.0
#: The shortest time between two log entries about a wrong configuration.
_CONFIG_ERROR_LOG_INTERVAL_SECONDS = 60.0


class WorkloadSubmitter:
    """Submits the workloads of one scheduler job."""

    def __init__(
        self,
        ledger_access: LedgerAccess,
        tracked_workloads: TrackedWorkloads,
        executor: ExecutorDelegate,
        log: logging.Logger,
        shared_settings: Mapping[str, str],
    ) -> None:
        """Send nothing yet. `shared_settings`: variables for each container, see `read_shared_settings`."""
        self._container_variables = build_container_variables(shared_settings)
        self._ledger_access = ledger_access
        self._tracked_workloads = tracked_workloads
        self._executor = executor
        self._log = log
        self._clock = time.time  # as in the tokens
        self._warned_queues: set[str | None] = set()
        self._config_error_logged_at = float("-inf")

    def submit(self, workloads: Sequence[Any]) -> None:
        """Send the workloads. Those that the ledger does not accept now stay queued, with the same envelope."""
        if self._ledger_access.is_backing_off:
            return
        conflicts = self._send(self._prepare(workload) for workload in workloads)
        tasks = [tracked for tracked in conflicts if tracked.task_instance_id is not None]
        self._send(self._prepare_with_new_id(tracked) for tracked in tasks)
        self._adopt_existing([tracked for tracked in conflicts if tracked.task_instance_id is None])

    def resend(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """Send the same envelopes again, after the ledger lost them in a fail-over."""
        self._send(tracked_workloads)

    def _send(self, tracked_workloads: Iterable[TrackedWorkload | None]) -> list[TrackedWorkload]:
        """Put and publish each batch while the next one is prepared; return those whose id another request has."""
        prepared = (
            (tracked, tracked.prepared_request)
            for tracked in tracked_workloads
            if tracked is not None and tracked.prepared_request is not None
        )
        sending: list[tuple[list[TrackedWorkload], Future[list[OperationResult]]]] = []
        try:
            while batch := list(islice(prepared, SEND_BATCH_SIZE)):
                results = self._ledger_access.send_in_background([request for _, request in batch])
                sending.append(([tracked for tracked, _ in batch], results))
        finally:
            wait([results for _, results in sending])
        return [conflict for sent, results in sending for conflict in self._apply_put_results(sent, results.result())]

    def _apply_put_results(
        self, tracked_workloads: Sequence[TrackedWorkload], results: Sequence[OperationResult]
    ) -> list[TrackedWorkload]:
        accepted: list[TrackedWorkload] = []
        conflicts: list[TrackedWorkload] = []
        for tracked, result in zip(tracked_workloads, results, strict=False):
            if result.code is ResultCode.CONFLICT:
                conflicts.append(tracked)
            elif result.code is ResultCode.TOO_LATE:  # the envelope became too old in an outage; the next is a new one
                self._tracked_workloads.drop(tracked.key)
            elif result.code is ResultCode.BROKEN:
                self._hold_broken(tracked)
            else:
                accepted.append(tracked)
        self._mark_accepted(accepted)
        return conflicts

    def _hold_broken(self, tracked: TrackedWorkload) -> None:
        """Keep it queued. A new id could run it twice: the broken record may be its own, with a task that runs."""
        advice = f"`ecs-queue broken show record:{tracked.request_id}` says more, `broken drop` lets it go on"
        self._executor.hold(
            tracked.key, f"it stays queued while the ledger's record of its id cannot be used: {advice}"
        )

    def _mark_accepted(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        now = time.monotonic()
        new = [tracked for tracked in tracked_workloads if not tracked.is_accepted]
        for tracked in tracked_workloads:
            tracked.put_at = now
            tracked.is_accepted = True
        self._executor.mark_accepted(new)

    def _adopt_existing(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """Callbacks and connection tests keep one id: an earlier scheduler has already sent these."""
        results = self._ledger_access.adopt([tracked.request_id for tracked in tracked_workloads])
        for tracked, result in zip(tracked_workloads, results or (), strict=False):
            if result.code is ResultCode.BROKEN:
                self._hold_broken(tracked)
            elif result.code is not ResultCode.NOT_FOUND:
                crash_point("airflow.callback_adopted")
                tracked.prepared_request = None
                self._mark_accepted([tracked])

    def _prepare_with_new_id(self, tracked: TrackedWorkload) -> TrackedWorkload | None:
        """With several executors Airflow does not always assign a new id: this one is an earlier request's."""
        self._tracked_workloads.drop(tracked.key)
        return self._prepare(tracked.workload, str(uuid.uuid4()))

    def _prepare(self, workload: Any, request_id: str | None = None) -> TrackedWorkload | None:
        """Return the workload with its prepared request; None when it cannot be sent, or not now."""
        key = self._executor.workload_key(workload)
        known = self._tracked_workloads.get_by_key(key)
        if known is not None and known.workload is workload and known.prepared_request is not None:
            return known if self._check_token_lifetime(known.prepared_request.submission.expires_at, key) else None
        try:
            tracked = self._build_tracked_workload(key, workload, request_id)
        except InvalidRequest as error:
            self._executor.reject(key, str(error))
        except ConfigError as error:
            self._log_config_error(error)
            self._executor.hold(key, f"it stays queued until the configuration is corrected: {error}")
        except Exception as error:  # noqa: BLE001 - one workload must not keep the others from being sent
            self._log.error("ecs-queue: no request can be made of the workload %s: %s", key, traceback_text(error))
            self._executor.reject(key, f"no request can be made of it: {typed_error_text(error)}")
        else:
            if tracked is not None:
                self._tracked_workloads.add(tracked)
            return tracked
        return None

    def _build_tracked_workload(self, key: Hashable, workload: Any, new_id: str | None) -> TrackedWorkload | None:
        task = getattr(workload, "ti", None)
        assigned_id = validate_request_id(str(key) if task is None else getattr(task, "external_executor_id", None))
        request_id = new_id or assigned_id or str(uuid.uuid4())
        task_line = self._build_task_line(workload, task, request_id)
        expires_at = read_token_expiry(workload.token)
        if expires_at is not None:
            if not self._check_token_lifetime(expires_at, key):
                return None
            task_line["expires_in"] = expires_at - self._clock()
        return TrackedWorkload(
            key,
            request_id,
            task_instance_id=None if task is None else str(task.id),
            workload=workload,
            id_generated=request_id != assigned_id,
            assigned_id=assigned_id,
            prepared_request=self._ledger_access.prepare(task_line),
        )

    def _check_token_lifetime(self, expires_at: float, key: Hashable) -> bool:
        if expires_at - self._clock() >= _MIN_TOKEN_LIFETIME_SECONDS:
            return True
        self._log.info("ecs-queue: the token of %s has expired; Airflow will queue it again with a new one", key)
        return False

    def _build_task_line(self, workload: Any, task: Any, request_id: str) -> dict[str, Any]:
        config = self._ledger_access.config
        airflow_queue = getattr(workload if task is None else task, "queue", None)
        queue = resolve_queue(config, airflow_queue)
        self._warn_default_queue_once(airflow_queue, queue)
        profile = config.profile(queue)
        executor_config, policies = split_executor_config(None if task is None else task.executor_config)
        if profile.retry_rules:  # as relaunch
            policies["retry_rules"] = []
        return {
            "id": request_id,
            "command": build_command(workload.model_dump_json(), report_exit_status=task is None),
            "queue": queue,
            "executor_config": add_container_variables(
                executor_config, profile.container_name, self._container_variables
            ),
            "priority": HIGHEST_PRIORITY if task is None else convert_priority(task.priority_weight),
            "relaunch": "never_started",  # once user code may have run, Airflow's own retries decide
            "traceparent": read_traceparent(task),
            "labels": read_labels(task, config.airflow_labels or (), getattr(self._executor, "team_name", None)),
            "submitted_by": config.acting_user or _EXECUTOR_NAME,
            **policies,
        }

    def _warn_default_queue_once(self, airflow_queue: str | None, queue: str) -> None:
        if queue != DEFAULT_QUEUE or airflow_queue in (None, "", queue, *self._warned_queues):
            return
        self._warned_queues.add(airflow_queue)
        self._log.warning(
            "ecs-queue: the queue %r has no section [aws_ecs_executor.%s], so its tasks go to the queue %r",
            airflow_queue,
            airflow_queue,
            DEFAULT_QUEUE,
        )

    def _log_config_error(self, error: ConfigError) -> None:
        if time.monotonic() - self._config_error_logged_at >= _CONFIG_ERROR_LOG_INTERVAL_SECONDS:
            self._config_error_logged_at = time.monotonic()
            self._log.error("ecs-queue: tasks stay queued until the configuration is corrected: %s", error)
