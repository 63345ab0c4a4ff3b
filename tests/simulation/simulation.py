"""One simulation: its processes, its disturbances and its end."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import ecs_queue.worker.consumer
from ecs_queue.broker.base import Broker
from ecs_queue.config import Config, load_config
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol.settings import ProtocolSettings
from tests.simulation.broker import SimBroker, SimBrokerServer
from tests.simulation.clients import SimClientProcess, SimOwner, SimRequest
from tests.simulation.ecs import SimEcs, SimTask, VersionGrowth, draw_version_growth
from tests.simulation.events import EVENT_QUEUE_URL, SimEventFaults, SimEventQueueServer, draw_event_faults
from tests.simulation.faults import SimFaults, draw_faults, without_faults
from tests.simulation.gateway import SimGateway
from tests.simulation.ledger import SimLedger, SimLedgerServer
from tests.simulation.monitor import InvariantMonitor
from tests.simulation.policies import CAPACITY_FALLBACK, RETRY_RULES, SimPolicies, draw_policies
from tests.simulation.process import HistoryLine, SimProcess, SimulationContext
from tests.simulation.scheduler import SimTime
from tests.simulation.workers import SimWorker

#: The bounds of one simulation. Nearly all seeds need less than a tenth of either.
MAX_STEPS = 400_000
MAX_SECONDS = 43_200.0
_ENVIRON = {
    "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://",
    "AIRFLOW__ECS_QUEUE__CONCURRENCY": "4",
    "AIRFLOW__ECS_QUEUE__LAUNCH_DEADLINE": "7200",
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs",
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS": "3",
}

#: The settings from which each simulation draws.
_SETTINGS = {
    "run_task_rate": ("0", "1", "20"),
    "run_task_burst": ("1", "20"),
    "accept_seconds": ("86400", "86400", "1200"),
    "retention_seconds": ("86400", "60"),
    "max_in_flight": ("0", "0", "2"),
    "startup_allowance": ("0", "0", "5"),
    "queue_limit": ("0", "0", "1"),
}


@dataclass(frozen=True)
class SimulationReport:
    """The outcome of one seed. `history` is empty unless it was traced."""

    seed: int
    violations: list[str]
    history: list[HistoryLine]
    steps: int
    seconds: float
    coverage: Counter[str]


def simulate(
    seed: int,
    *,
    trace: bool = False,
    faults: SimFaults | None = None,
    policies: SimPolicies | None = None,
    max_steps: int = MAX_STEPS,
) -> SimulationReport:
    """Run one seed, with `faults` and `policies` in place of its own if given. The same seed gives the same report.

    With `faults` and without `policies` there are no policies.
    """
    lines: list[HistoryLine] | None = [] if trace else None
    context = SimulationContext(seed, SimFaults(), lines)
    context.faults = draw_faults(context.rng) if faults is None else faults
    event_faults = draw_event_faults(seed) if faults is None else None
    if policies is None:
        policies = draw_policies(seed) if faults is None else SimPolicies()
    context.faults = replace(context.faults, stays_pending=policies.stays_pending)
    with simulated_time(context):
        simulation = Simulation(context, event_faults, draw_version_growth(seed), policies)
        simulation.run(max_steps)
    return simulation.report(seed, lines)


@cache
def make_config(
    task_definition: str,
    settings: tuple[str, ...],
    event_queue_url: str = "",
    policies: SimPolicies = SimPolicies(),  # noqa: B008 - it is frozen
) -> Config:
    """Return a configuration. Workers of one simulation may differ in their task definition, as in a roll-out."""
    environ, overrides = make_environ(task_definition, settings, event_queue_url, policies)
    return load_config(environ=environ, overrides=overrides)


def make_environ(
    task_definition: str, settings: tuple[str, ...], event_queue_url: str, policies: SimPolicies
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment and the overrides of a configuration with the drawn settings."""
    overrides = {**dict(zip(_SETTINGS, settings, strict=True)), "event_queue_url": event_queue_url}
    # Simulated workers send no heartbeats, so a worker that only lost a reply counts as dead, too.
    overrides["max_deliveries"] = "3" if overrides["max_in_flight"] == "2" else "1000"
    limit = overrides.pop("queue_limit")
    profile = {"TASK_DEFINITION": task_definition, "MAX_IN_FLIGHT": limit, "START_TIMEOUT": f"{policies.start_timeout}"}
    profile |= {"MAX_STARTING": str(policies.max_starting), "LAUNCH_RATE": str(policies.launch_rate)}
    profile["MAX_PER_KEY"] = str(policies.max_per_key)
    if policies.has_retry_rules:
        profile["RETRY_RULES"] = json.dumps(RETRY_RULES)
    if policies.has_capacity_fallback:
        profile["CAPACITY_FALLBACK"] = json.dumps(CAPACITY_FALLBACK)
        profile |= {"CAPACITY_FALLBACK_AFTER": "2", "CAPACITY_FALLBACK_SECONDS": "60"}
    environ = {**_ENVIRON, **{f"AIRFLOW__AWS_ECS_EXECUTOR__{key}": value for key, value in profile.items()}}
    return environ, overrides


class Simulation:
    """One simulation; `run` it once. Without `event_faults`, no task events are used."""

    def __init__(
        self,
        context: SimulationContext,
        event_faults: SimEventFaults | None = None,
        version_growth: VersionGrowth = "grows",
        policies: SimPolicies = SimPolicies(),  # noqa: B008 - it is frozen
    ) -> None:
        self._context = context
        self._event_server = None if event_faults is None else SimEventQueueServer(context, event_faults)
        rng = context.rng
        settings = tuple(rng.choice(values) for values in _SETTINGS.values())
        url = EVENT_QUEUE_URL if self._event_server else ""
        self._configs = self._make_configs(settings, url, policies)
        config = self._configs[0]
        self._queues = [profile.queue for profile in config.profiles()]
        self.monitor = self._make_monitor(config)
        self.ledger = SimLedgerServer(context, ProtocolSettings.from_config(config))
        self.ledger.queue_limit = config.base_profile.max_in_flight
        self.ledger.start_limit = config.base_profile.max_starting
        self.ecs = SimEcs(
            context.scheduler,
            rng,
            context.present_faults,
            self._task_created,
            self._task_changed,
            version_growth,
        )
        self.monitor.attach(self.ledger, self.ecs)
        self._broker_server = SimBrokerServer(context)
        self.began = context.now
        self._faults_over = False
        self._faults_end_at = rng.choice((60.0, 300.0, 900.0)) * rng.uniform(0.5, 1.5)
        if rng.random() < 0.08:
            self._faults_end_at = rng.uniform(3000.0, 8000.0)
        self._workers: dict[str, SimWorker] = {}
        self._clients: dict[str, SimClientProcess] = {}
        self._delays, self._keys = policies.delays, policies.keys
        self._start_counts: Counter[str] = Counter()
        self._owners = [self._new_owner(number) for number in range(rng.choice((1, 1, 2)))]

    def _make_configs(self, settings: tuple[str, ...], event_queue_url: str, policies: SimPolicies) -> list[Config]:
        return [make_config(f"family:{number}", settings, event_queue_url, policies) for number in (1, 2)]

    def _make_monitor(self, config: Config) -> InvariantMonitor:
        return InvariantMonitor(self._context, config)

    def run(self, max_steps: int) -> None:
        """Run to the end or to the first violation."""
        scheduler, rng = self._context.scheduler, self._context.rng
        self._context.trace(f"faults: {self._context.faults}")
        for number in range(rng.choice((2, 3))):
            self._new_worker(f"w{number}")
        for owner in self._owners:
            self._new_client(owner)
        self._broker_server.enqueue(self._broker_server.queues.requests, "default", b"\xff this is no envelope")
        if rng.random() < 0.3:
            scheduler.call_after(rng.uniform(0.0, self._faults_end_at), self._pause)
        for _ in range(rng.choice((0, 1, 3))):
            scheduler.call_after(rng.uniform(0.0, self._faults_end_at), self._cause_disturbance)
        scheduler.call_after(self._faults_end_at, self._end_faults)
        scheduler.run(self._is_over, max_steps)
        if not self.monitor.violations and not self._context.thread_errors:
            if not self._is_complete():
                self.monitor.report_violation(
                    f"not over after {scheduler.steps} steps and {self._context.now - self.began:.0f} s"
                )
            self.monitor.finish(self._owners)
        scheduler.close()

    def report(self, seed: int, lines: list[HistoryLine] | None) -> SimulationReport:
        """Return the outcome after `run`."""
        context = self._context
        violations = self.monitor.violations + context.thread_errors
        seconds = context.now - self.began
        return SimulationReport(seed, violations, lines or [], context.scheduler.steps, seconds, self.monitor.coverage)

    def _is_over(self) -> bool:
        if self.monitor.violations or self._context.thread_errors:
            return True
        return self._faults_over and (self._is_complete() or self._context.now - self.began > MAX_SECONDS)

    def _is_complete(self) -> bool:
        if self.ledger.due or any(not message.gone for message in self._broker_server.queues.requests):
            return False
        return all(owner.done or owner.abandoned for owner in self._owners) and not any(
            task.is_running for task in self.ecs.tasks.values()
        )

    # The processes.

    def _new_worker(self, name: str) -> None:
        self._start_counts[name] += 1
        worker = SimWorker(
            self._context,
            f"{name}.{self._start_counts[name]}",
            partial(self._worker_died, name),
            self._context.rng.choice(self._configs),
            self._connect_worker,
            self._wait_idle,
            self.monitor.report_violation,
            self._event_server,
            self.monitor.on_reported,
        )
        self._workers[name] = worker
        worker.start()

    def _connect_worker(self, process: SimProcess) -> tuple[Ledger, Broker, EcsGateway]:
        return *self._connect(process), SimGateway(process, self.ecs)

    def _connect(self, process: SimProcess) -> tuple[Ledger, Broker]:
        ledger: Any = SimLedger(
            process,
            self.ledger,
            self._fail_over,
            self._ledger_changed,
            self.monitor.on_confirmed,
            self.monitor.on_unconfirmed,
            self.monitor.report_violation,
        )
        return ledger, SimBroker(process, self._broker_server)

    def _worker_died(self, name: str, _process: SimProcess) -> None:
        downtime = (
            0.5
            if self._faults_over
            else self._context.rng.choice((1.0, 20.0, 100.0)) * self._context.rng.uniform(0.5, 2)
        )
        self._context.scheduler.call_after(downtime, partial(self._new_worker, name))

    def _new_client(self, owner: SimOwner) -> None:
        self._start_counts[owner.name] += 1
        client = SimClientProcess(
            self._context,
            f"{owner.name}.{self._start_counts[owner.name]}",
            partial(self._client_died, owner),
            owner,
            self._configs[0],
            self._connect,
            self.monitor.report_violation,
        )
        self._clients[owner.name] = client
        client.start()

    def _client_died(self, owner: SimOwner, _process: SimProcess) -> None:
        rng = self._context.rng
        if not self._faults_over and rng.random() < 0.3:
            owner.abandoned = True
            if not owner.successor_of and rng.random() < 0.5:
                self._context.scheduler.call_after(rng.uniform(1.0, 60.0), partial(self._start_successor, owner))
            return
        if not owner.done or owner.has_pending_stops:
            downtime = rng.choice((1.0, 30.0)) * rng.uniform(0.5, 2.0)
            self._context.scheduler.call_after(downtime, partial(self._new_client, owner))

    def _start_successor(self, dead: SimOwner) -> None:
        requests = [
            SimRequest(request.line, 0.0, is_accepted=True, nonce=request.nonce)
            for request in dead.requests
            if request.is_accepted
        ]
        if requests:
            successor = SimOwner(f"successor-of-{dead.name}", requests, successor_of=dead.name)
            self._owners.append(successor)
            self._new_client(successor)

    def _new_owner(self, number: int) -> SimOwner:
        rng = self._context.rng
        requests = []
        for index in range(self._request_count()):
            submit_at = self.began + rng.choice((0.0, 1.0, 0.5 * self._faults_end_at)) * rng.random()
            line: dict[str, Any] = {"id": f"r{number}-{index}", "command": ["true"]}
            line |= self._draw_fields(line["id"])
            line["relaunch"] = rng.choice(("never_started", "interrupted", "any_failure"))
            if self._delays and (delay := self._delays[index % len(self._delays)]):
                line["delay"] = delay
            if self._keys and (key := self._keys[index % len(self._keys)]):
                line |= {"concurrency_key": key, "priority": index % 2}
            if rng.random() < 0.2:
                line["expires_in"] = rng.choice((30.0, 300.0, 2400.0)) * rng.uniform(0.5, 2.0)
            if rng.random() < 0.15:
                line["time_limit"] = rng.uniform(5.0, 60.0)
            stop_at = submit_at + rng.choice((-2.0, 1.0, 10.0, 100.0, 1000.0)) * rng.random()
            requests.append(SimRequest(line, submit_at, stop_at if rng.random() < 0.25 else 0.0))
        return SimOwner(f"c{number}", requests, clock_offset=rng.choice((0.0, rng.uniform(-200.0, 200.0))))

    def _draw_fields(self, request_id: str) -> dict[str, Any]:
        """Draw further fields of a task line."""
        return {}

    def _request_count(self) -> int:
        return self._context.rng.choice((1, 2, 3, 4))

    # The disturbances.

    def _cause_disturbance(self) -> None:
        """Cause a disturbance that lasts for a while or strikes all processes at once."""
        if self._faults_over:
            return
        rng = self._context.rng
        workers = list(self._workers.values())
        victim = rng.choice([*workers, *self._clients.values()])
        kind = rng.choice(("ledger", "ecs", "freeze", "kill", "terminate", "terminate"))
        if self._context.happens(self._context.faults.lasting_outage):
            kind = "outage"
        if kind in ("ledger", "ecs"):
            self._disconnect(victim, kind, rng.choice((5.0, 60.0, 700.0)) * rng.uniform(0.5, 2.0))
        elif kind == "freeze":
            self.monitor.has_frozen = True
            victim.freeze(rng.choice((10.0, 60.0, 700.0)) * rng.uniform(0.5, 2.0), "anything")
        elif kind == "kill" and not victim.is_dead:
            victim.kill("anything")
        elif kind == "terminate":
            worker = rng.choice(workers)
            if not worker.is_dead:
                worker.terminate()
        elif kind == "outage":
            self.monitor.has_frozen = True
            for worker in workers:
                worker.freeze(rng.choice((1000.0, 4000.0)) * rng.uniform(0.5, 1.3), "an outage")

    def _pause(self) -> None:
        """Pause the queue for a while; claimed requests continue."""
        self._context.trace("the queues are PAUSED")
        self.ledger.pause_queues(self._queues)
        self.monitor.paused = True
        self._context.scheduler.call_after(self._context.rng.choice((5.0, 60.0, 1000.0)), self._resume)

    def _resume(self) -> None:
        self._context.trace("the queues are resumed")
        self.ledger.resume_queues(self._queues)
        self.monitor.paused = False
        self._context.scheduler.notify_parked()

    def _disconnect(self, process: SimProcess, what: str, seconds: float) -> None:
        self._context.trace(f"{process.name} does not reach {what} for {seconds:.0f} s")
        process.unreachable.add(what)
        self._context.scheduler.call_after(seconds, lambda: process.unreachable.discard(what))

    def _fail_over(self) -> None:
        if self.ledger.has_snapshot:
            self._context.trace("the ledger FAILS OVER and loses what was not yet durable")
            self.ledger.fail_over()
            self.monitor.on_fail_over()
            self._context.scheduler.notify_parked(self.ledger.next_due())

    def _end_faults(self) -> None:
        """End all faults: from now on everything must come to its end."""
        self._context.trace("all faults are over")
        self._faults_over = True
        self._context.faults = without_faults(self._context.faults)
        if self._event_server is not None:
            self._event_server.clear_faults()
        for process in [*self._workers.values(), *self._clients.values()]:
            process.unreachable.clear()  # frozen processes stay frozen: those that wake late are the dangerous ones

    def _wait_idle(self, seconds: float) -> None:
        """Wait in place of a service: for `seconds`, or until work is due if that is later."""
        scheduler = self._context.scheduler
        left = self.ledger.next_due() - scheduler.now
        if left <= seconds:
            scheduler.sleep(seconds * self._context.rng.uniform(0.5, 1.5))
        else:
            scheduler.park(min(left, 600.0) + self._context.rng.random() * seconds, seconds)

    def _ledger_changed(self, operation: str, result: Any) -> None:
        self.monitor.on_ledger_operation(operation, result)
        self.monitor.coverage["polled_soon"] += result if operation == "poll_soon" else 0
        self._context.scheduler.notify_parked(self.ledger.next_due())

    def _task_created(self, task: SimTask) -> None:
        self._context.trace(f"ECS has started {task.arn[-2:]} for {task.started_by}")
        self.monitor.on_task_created(task)
        self._emit_event(task)

    def _task_changed(self, task: SimTask, what: str) -> None:
        self._context.trace(f"ECS: {task.arn[-2:]} {what}")
        self._emit_event(task)

    def _emit_event(self, task: SimTask) -> None:
        if self._event_server is not None:
            self._event_server.emit(task)


@contextmanager
def simulated_time(context: SimulationContext) -> Iterator[None]:
    """Replace the clock of the module that reads the machine's, and log nothing."""
    logger = logging.getLogger("ecs_queue")
    level = logger.level
    time = SimTime(context.scheduler)
    with ExitStack() as stack:
        stack.enter_context(patch.object(ecs_queue.worker.consumer, "time", time))
        stack.callback(logger.setLevel, level)
        logger.setLevel(logging.CRITICAL + 1)
        yield
