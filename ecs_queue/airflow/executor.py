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

from ecs_queue.airflow import orders, reports
from ecs_queue.airflow.desk import Desk
from ecs_queue.airflow.flights import Flight, Flights
from ecs_queue.airflow.intake import Intake
from ecs_queue.airflow.leftovers import Leftovers
from ecs_queue.airflow.metrics import Metrics
from ecs_queue.airflow.returns import Returns
from ecs_queue.airflow.settings import Timeouts, read_config, read_timeouts
from ecs_queue.airflow.taskstates import unsettled, unwanted
from ecs_queue.core.envelope import TaskResult
from ecs_queue.crashpoints import reach

if TYPE_CHECKING:
    from ecs_queue.config import Config

#: What one `sync` may take of the scheduler's time. Seconds.
SYNC_BUDGET = 0.5
#: An unexpected error of ours is logged with its trace at most so often. Seconds.
_TRACE_EVERY = 60.0
#: BaseExecutor's places for what waits; later versions of Airflow have one dict of them, `executor_queues`.
_QUEUES = ("queued_tasks", "queued_callbacks", "queued_connection_tests")


def supported_types() -> frozenset[Any]:
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
    supported_workload_types: ClassVar[frozenset[Any]] = supported_types()
    pre_assigns_external_executor_id: ClassVar[bool] = True
    supports_sentry: bool = False
    sentry_integration: str = ""
    is_local: bool = False
    is_production: bool = True
    serve_logs: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flights = Flights()
        self._traced_at = float("-inf")
        self._held_logs: list[Any] = []
        #: Tests put others here; the defaults ask Airflow's database.
        self.unsettled: Callable[[Sequence[Flight]], set[str]] = unsettled
        self.unwanted: Callable[[Sequence[Flight]], set[str]] = unwanted
        self.metrics = Metrics(getattr(self, "team_name", None))

    # What the scheduler calls

    def start(self) -> None:
        """Read the configuration (ConfigError when it is wrong) and, if it says so, look at ledger and broker."""
        config = self.desk.config
        if config.base_profile.check_health_on_startup:
            for complaint in self.desk.complaints():
                self.log.error("ecs-queue: %s; scheduling starts all the same", complaint)
        self.log.info("ecs-queue: results come to %s", self.desk.owner)

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        """One pipelined write to the ledger and one batch to the broker. What is not accepted stays queued."""
        with self.metrics.timer("publish.duration"):
            self._guarded(lambda: self._intake.take(workload_items))

    def sync(self) -> None:
        """Take results and keep the books in order, for at most about `SYNC_BUDGET` seconds."""
        self._held_logs = list(self._task_event_logs)  # those of earlier heartbeats are saved by now
        with self.metrics.timer("sync.duration"):
            self._guarded(lambda: self._returns.round(time.monotonic() + SYNC_BUDGET))
            self._guarded(lambda: self._leftovers.round())
        self._guarded(lambda: self.metrics.send(outstanding=len(self._flights), unconfirmed_results=len(self._returns)))

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """See BaseExecutor. Only tasks have an event log, which 3.2 does not ask. The entry is held until it is saved.

        The scheduler hands the entries to SQLAlchemy's bulk_save_objects as a generator, which keeps nothing but weak
        references: with nobody else to hold them they are empty when they are written, and the whole batch fails.
        """
        if not hasattr(ti_key, "dag_id"):
            return
        super().log_task_event(event=event, extra=extra, ti_key=ti_key)
        self._held_logs += list(self._task_event_logs)[-1:]

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """From outside (a lost heartbeat, stuck in queued): whatever still runs of it is stopped, too."""
        if remove_running:
            self._forget(key)
        super().change_state(key, state, info, remove_running=remove_running)

    def revoke_task(self, *, ti: Any) -> None:
        """Forget the task and stop its request with the next heartbeat. The scheduler queues it again, under a new id.

        Never raises, and does no I/O: the scheduler holds a database session.
        """
        self._guarded(lambda: self._revoke(ti))

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
        self._forget(key)
        self._unqueue(key)
        self.running.discard(key)

    def end(self) -> None:
        """Say what is still to be said to the ledger. ECS tasks go on, the next scheduler adopts them."""
        if "desk" in self.__dict__:
            self._guarded(self._returns.flush)
            self._guarded(self.desk.close)

    def terminate(self) -> None:
        """As `end`: a scheduler that is stopped must not stop the jobs."""
        self.end()

    def debug_dump(self) -> None:
        """Airflow's own state, then ours."""
        super().debug_dump()
        for flight in self._flights:
            self.log.info("ecs-queue: %s is request %s (accepted=%s)", flight.key, flight.id, flight.accepted)
        if "desk" in self.__dict__:
            self.log.info(
                "ecs-queue: owner %s, %d results told and not confirmed, ledger away=%s, broker away=%s",
                self.desk.owner,
                len(self._returns),
                self.desk.ledger_outage.resting,
                self.desk.broker_outage.resting,
            )

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """(messages, log lines) of the task's container, while it runs. Needs no `start`."""
        from ecs_queue.airflow.logs import read_task_log

        del try_number  # the id is of one try
        try:
            return read_task_log(self._config(), getattr(ti, "external_executor_id", None))
        except Exception as error:  # noqa: BLE001 - a page that shows why is better than one that fails
            return [f"ecs-queue: the container's log cannot be read: {type(error).__name__}: {error}"], []

    @staticmethod
    def get_cli_commands() -> list[Any]:
        """`airflow ecs-queue ...`: the commands of `ecs-queue`."""
        from ecs_queue.airflow.cli import get_cli_commands

        return get_cli_commands()

    # What intake and returns ask for

    def key_of(self, workload: Any) -> Any:
        """Airflow's key of a workload: what it is queued under."""
        task = getattr(workload, "ti", None)
        return orders.key_of(workload) if task is None else self._task_key(task)

    def take_off(self, flight: Flight) -> None:
        """It is the ledger's now."""
        self.metrics.incr("published")
        self._unqueue(flight.key)
        self.running.add(flight.key)
        if flight.minted and flight.task is not None:
            self._say(flight.key, "QUEUED", flight.id)
        reach("airflow.taken_off")

    def refuse(self, key: Hashable, reason: str) -> None:
        """It can never run: it fails, alone."""
        self.metrics.incr("refused")
        self._unqueue(key)
        self.log_task_event(event=reports.EVENT_REFUSED, extra=reason, ti_key=key)
        self.fail(key, f"ecs-queue refused it: {reason}")

    def tell(self, flight: Flight, result: TaskResult, *, first: bool) -> None:
        """How a request ended, to the scheduler and to the task's event log."""
        key: Any = flight.key
        if first:
            self.metrics.incr("results", state=result.state)
            event, text = reports.event_of(result)
            self.log_task_event(event=event, extra=text, ti_key=key)
        else:
            self.metrics.incr("results_repeated")
        (self.success if result.succeeded else self.fail)(key, reports.info_of(result))
        reach("airflow.told")

    def hold(self, flight: Flight, result: TaskResult) -> None:
        """It never started: Airflow queues it again, and it uses up no try of the task's."""
        self.metrics.incr("expired")
        event, text = reports.expiry_of(result)
        self.log_task_event(event=event, extra=text, ti_key=flight.key)
        self.running.discard(flight.key)

    def is_told(self, key: Hashable) -> bool:
        """Whether the scheduler has collected the key's event."""
        return key not in self.event_buffer

    def is_lost(self, flight: Flight) -> None:
        """Another scheduler has it, or the ledger has lost it: Airflow's own time-outs decide."""
        self.metrics.incr("lost")
        self.log.warning("ecs-queue: request %s of %s is no longer this scheduler's", flight.id, flight.key)
        self.running.discard(flight.key)

    def resend(self, flights: Sequence[Flight]) -> None:
        """The ledger has lost what was put in its last second."""
        self.metrics.incr("resent", len(flights))
        self._intake.resend(flights)

    # What leftovers ask for

    def unsent(self) -> list[Flight]:
        """Tasks that wait in this executor: the ledger is away, or their tokens have expired."""
        waiting = [(self.key_of(workload), workload) for queue in self._queues() for workload in queue.values()]
        return [
            self._flights.of_key(key) or Flight(key, f"unsent {workload.ti.id}", task=str(workload.ti.id), minted=True)
            for key, workload in waiting
            if getattr(workload, "ti", None) is not None
        ]

    def withdraw(self, flight: Flight) -> None:
        """Airflow does not wait for it any more, and its container has not run."""
        self.metrics.incr("withdrawn")
        self.log.info("ecs-queue: %s is taken back, no task waits for request %s any more", flight.key, flight.id)
        self.log_task_event(event=reports.EVENT_STOPPED, extra=reports.withdrawal_of(flight.id), ti_key=flight.key)
        self._unqueue(flight.key)
        self.running.discard(flight.key)
        self._forget(flight.key)

    def cut_short(self, flight: Flight) -> None:
        """Its container should have ended itself when Airflow told it so; its end is told as usual."""
        self.metrics.incr("stopped")
        self.log.warning("ecs-queue: stopping request %s, no task waits for it any more: %s", flight.id, flight.key)
        self._returns.stop_later(flight.id)

    # Ourselves

    @cached_property
    def desk(self) -> Desk:
        """Access to ledger and broker, for this scheduler job's results. No connection is made yet."""
        return Desk.open(self._config(), self._owner(), self.log, self.count_failure)

    def count_failure(self, server: str) -> None:
        """A call of `ledger` or `broker` failed."""
        self.metrics.incr(f"{server}_unavailable")

    @cached_property
    def _intake(self) -> Intake:
        return Intake(self.desk, self._flights, self, self.log)

    @cached_property
    def _returns(self) -> Returns:
        hold = self._timeouts.requeue
        return Returns(self.desk, self._flights, self, lambda flights: self.unsettled(flights), hold)

    @cached_property
    def _leftovers(self) -> Leftovers:
        patience = self._timeouts.heartbeat
        return Leftovers(self.desk, self._flights, self, lambda flights: self.unwanted(flights), patience)

    @cached_property
    def _timeouts(self) -> Timeouts:
        from airflow.configuration import conf

        return read_timeouts(conf)

    def _config(self) -> Config:
        from airflow.configuration import conf

        return read_config(self.conf, conf.sections(), team=self.team_name)

    def _owner(self) -> str:
        """Of this job alone: two schedulers, teams or executors never take each other's results."""
        job = secrets.token_hex(6) if self.job_id is None else str(self.job_id)
        parts = ["airflow", job, self.team_name or "", getattr(self.name, "alias", None) or ""]
        return re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(part for part in parts if part))[:64]

    def _task_key(self, ti: Any) -> Any:
        of_version = getattr(self, "get_task_key", None)  # Airflow 3.4
        return ti.key if of_version is None else of_version(ti)

    def _queues(self) -> list[dict[Any, Any]]:
        later = getattr(self, "executor_queues", None)  # Airflow 3.4, whose three old names may be views of them
        return [getattr(self, name, {}) for name in _QUEUES] if later is None else list(later.values())

    def _unqueue(self, key: Any) -> None:
        for queue in self._queues():
            queue.pop(key, None)

    def _forget(self, key: Any) -> None:
        """Whatever request the key still has is to be stopped."""
        flight = self._flights.drop(key)
        if flight is not None:
            self._returns.stop_later(flight.id)

    def _say(self, key: Any, state: str, info: str) -> None:
        from airflow.utils.state import TaskInstanceState

        super().change_state(key, TaskInstanceState[state], info, remove_running=False)

    def _revoke(self, ti: Any) -> None:
        self.metrics.incr("revoked")
        key = self._task_key(ti)
        self._unqueue(key)
        self.running.discard(key)
        self._forget(key)
        known = orders.usable_id(getattr(ti, "external_executor_id", None))
        if known is not None:  # also when this process never heard of it
            self._returns.stop_later(known)

    def _adopt(self, tis: Sequence[Any]) -> Sequence[Any]:
        wanted = {request_id: ti for ti in tis if (request_id := orders.usable_id(ti.external_executor_id))}
        unknown = [ti for ti in tis if orders.usable_id(ti.external_executor_id) is None]
        flights = [
            Flight(self._task_key(ti), request_id, task=str(ti.id), accepted=True) for request_id, ti in wanted.items()
        ]
        records = self.desk.get([flight.id for flight in flights])
        adopted = None if records is None else self._returns.adopt(flights, records)
        for flight in flights:
            flight.stray = adopted is None
            if adopted is None or flight.id in adopted:
                self._flights.add(flight)
                self.running.add(flight.key)
            else:
                self._returns.stop_later(flight.id)  # should its message still come, it is not launched beside the new
                unknown.append(wanted[flight.id])
        return unknown

    def _guarded(self, act: Callable[[], None]) -> None:
        """An exception here would end the scheduler, whatever it is."""
        try:
            act()
        except Exception:
            self.metrics.incr("errors")
            if time.monotonic() - self._traced_at >= _TRACE_EVERY:
                self._traced_at = time.monotonic()
                self.log.exception("ecs-queue: an unexpected error; scheduling goes on")
