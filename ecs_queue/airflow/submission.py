"""Workloads on their way out: made into requests, put into the ledger, announced."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, wait
from itertools import islice
from typing import Any, Protocol

from ecs_queue.airflow import workload_conversion
from ecs_queue.airflow.config import resolve_queue
from ecs_queue.airflow.ledger_access import SEND_BATCH_SIZE, LedgerAccess
from ecs_queue.airflow.tracked_workloads import TrackedWorkload, TrackedWorkloads
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.protocol.operations import OperationResult, ResultCode

#: A token that is good for less than this is not worth a launch: Airflow queues the task again with a new one. Seconds.
_MIN_TOKEN_LIFETIME_SECONDS = 1.0
#: The same complaint about the configuration is not repeated for so long. Seconds.
_CONFIG_ERROR_LOG_INTERVAL_SECONDS = 60.0


class SubmissionDelegate(Protocol):
    """What the executor does with the outcome."""

    def workload_key(self, workload: Any) -> Hashable:
        """Airflow's key of a workload."""
        ...

    def mark_accepted(self, tracked: TrackedWorkload) -> None:
        """The ledger has it: no longer queued, but running."""
        ...

    def reject(self, key: Hashable, reason: str) -> None:
        """It can never run: fail it, alone."""
        ...


class WorkloadSubmitter:
    """`clock`: seconds since the epoch, as in the tokens."""

    def __init__(
        self,
        ledger_access: LedgerAccess,
        tracked_workloads: TrackedWorkloads,
        executor: SubmissionDelegate,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._ledger_access = ledger_access
        self._tracked_workloads = tracked_workloads
        self._executor = executor
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._warned_queues: set[str] = set()
        self._config_error_logged_at = float("-inf")

    def submit(self, workloads: Sequence[Any]) -> None:
        """Send them; what the ledger does not accept now stays queued, with the very same envelope."""
        if self._ledger_access.is_backing_off:
            return
        with self._ledger_access.pause_journal():
            conflicts = self._send(self._prepare(workload) for workload in workloads)
            renamed = (self._prepare_with_new_id(flight) for flight in conflicts if flight.task_instance_id is not None)
            self._send(renamed)
            self._adopt_existing([flight for flight in conflicts if flight.task_instance_id is None])

    def resend(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """The ledger has lost them at a fail-over: the very same envelopes again."""
        self._send(tracked_workloads)

    def _send(self, tracked_workloads: Iterable[TrackedWorkload | None]) -> list[TrackedWorkload]:
        """Put and announce each batch while the next is prepared; the flights whose ids another request has."""
        drafted = (
            (flight, flight.prepared_request)
            for flight in tracked_workloads
            if flight is not None and flight.prepared_request is not None
        )
        under_way: list[tuple[list[TrackedWorkload], Future[list[OperationResult]]]] = []
        try:
            while batch := list(islice(drafted, SEND_BATCH_SIZE)):
                sending = self._ledger_access.send_in_background([draft for _, draft in batch])
                under_way.append(([flight for flight, _ in batch], sending))
        finally:
            wait([sending for _, sending in under_way])
        return [flight for some, sending in under_way for flight in self._apply_put_results(some, sending.result())]

    def _apply_put_results(
        self, tracked_workloads: Sequence[TrackedWorkload], results: Sequence[OperationResult]
    ) -> list[TrackedWorkload]:
        conflicts: list[TrackedWorkload] = []
        for flight, answer in zip(tracked_workloads, results, strict=False):
            if answer.code is ResultCode.CONFLICT:
                conflicts.append(flight)
            elif answer.code is ResultCode.TOO_LATE:
                self._tracked_workloads.drop(
                    flight.key
                )  # an envelope that grew too old in an outage: a new one next time
            else:
                self._mark_accepted(flight)
        return conflicts

    def _mark_accepted(self, tracked: TrackedWorkload) -> None:
        tracked.put_at = time.monotonic()
        if not tracked.is_accepted:
            tracked.is_accepted = True
            self._executor.mark_accepted(tracked)

    def _adopt_existing(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """Callbacks and connection tests have one id for ever: an earlier scheduler has sent these already."""
        for flight, answer in zip(
            tracked_workloads, self._ledger_access.adopt([f.request_id for f in tracked_workloads]) or (), strict=False
        ):
            if answer.code is not ResultCode.NOT_FOUND:
                crash_point("airflow.callback_adopted")
                flight.prepared_request = None
                self._mark_accepted(flight)

    def _prepare_with_new_id(self, tracked: TrackedWorkload) -> TrackedWorkload | None:
        """Airflow's id is that of an earlier request (with several executors it does not always assign a new one)."""
        self._tracked_workloads.drop(tracked.key)
        return self._prepare(tracked.workload, self._new_id())

    def _prepare(self, workload: Any, request_id: str | None = None) -> TrackedWorkload | None:
        """The workload's flight with its draft; None when it cannot be sent (now)."""
        key = self._executor.workload_key(workload)
        known = self._tracked_workloads.get_by_key(key)
        if known is not None and known.workload is workload and known.prepared_request is not None:
            return known if self._check_token_lifetime(known.prepared_request.submission.expires_at, key) else None
        try:
            flight = self._build_tracked_workload(key, workload, request_id)
        except InvalidRequest as error:
            self._executor.reject(key, str(error))
            return None
        except ConfigError as error:
            self._log_config_error(error)
            return None
        except Exception as error:  # noqa: BLE001 - one workload must not keep the others from being sent
            self._log.exception("no request can be made of the workload %s", key)
            self._executor.reject(key, f"no request can be made of it: {type(error).__name__}: {error}")
            return None
        if flight is not None:
            self._tracked_workloads.add(flight)
        return flight

    def _build_tracked_workload(self, key: Hashable, workload: Any, request_id: str | None) -> TrackedWorkload | None:
        task = getattr(workload, "ti", None)
        given = request_id or _get_assigned_id(key, task)
        line = self._build_task_line(workload, task) | {"id": given or self._new_id()}
        expiry = workload_conversion.read_token_expiry(workload.token)
        if expiry is not None:
            if not self._check_token_lifetime(expiry, key):
                return None
            line["expires_in"] = expiry - self._clock()
        draft = self._ledger_access.prepare(line)
        minted = request_id is not None or given is None
        flight = TrackedWorkload(key, draft.request.id, workload=workload, id_generated=minted, prepared_request=draft)
        flight.task_instance_id = None if task is None else str(task.id)
        return flight

    def _check_token_lifetime(self, expires_at: float, key: Hashable) -> bool:
        if expires_at - self._clock() >= _MIN_TOKEN_LIFETIME_SECONDS:
            return True
        self._log.info("the token of %s has expired; Airflow will queue it again with a new one", key)
        return False

    def _build_task_line(self, workload: Any, task: Any) -> dict[str, Any]:
        config = self._ledger_access.config
        name = getattr(workload if task is None else task, "queue", None)
        queue = resolve_queue(config, name)
        self._warn_default_queue_once(name, queue)
        asked = None if task is None else task.executor_config
        return {
            "command": workload_conversion.build_command(workload.model_dump_json(), report_exit_status=task is None),
            "queue": queue,
            "executor_config": workload_conversion.add_container_marker(asked, config.profile(queue).container_name),
            "priority": workload_conversion.HIGHEST_PRIORITY
            if task is None
            else workload_conversion.convert_priority(task.priority_weight),
            "relaunch": "never_started",  # once user code may have run, Airflow's own retries decide
        }

    def _warn_default_queue_once(self, name: str | None, queue: str) -> None:
        if not name or name in self._warned_queues or name == queue or queue != "default":
            return
        self._warned_queues.add(name)
        self._log.warning(
            "the queue %r has no section [aws_ecs_executor.%s]: its tasks go to the queue 'default'", name, name
        )

    def _log_config_error(self, error: ConfigError) -> None:
        if time.monotonic() - self._config_error_logged_at >= _CONFIG_ERROR_LOG_INTERVAL_SECONDS:
            self._config_error_logged_at = time.monotonic()
            self._log.error("tasks wait until the configuration is mended: %s", error)


def _get_assigned_id(key: Hashable, task: Any) -> str | None:
    """The id that Airflow has chosen for this run of the workload."""
    if task is not None:
        return workload_conversion.validate_request_id(getattr(task, "external_executor_id", None))
    return workload_conversion.validate_request_id(str(key))
