"""What a local ECS can be told: where it listens, how slow it is, what it allows, what goes wrong."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from ecs_queue.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A token bucket: ``burst`` calls at once, refilled by ``rate`` calls a second."""

    rate: float
    burst: float

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ConfigError(f"quota rate: expected calls a second > 0, found {self.rate!r}")
        if not self.burst >= 1:
            raise ConfigError(f"quota burst: expected a number of calls >= 1, found {self.burst!r}")


@dataclass(frozen=True, kw_only=True)
class FaultOptions:
    """Probabilities (0 to 1) of things that go wrong on purpose; the same seed and calls give the same faults.

    throttle: ThrottlingException, nothing happened.
    server_error: HTTP 500 ServerException, nothing happened.
    accept_then_drop: it happened, but the connection closes without an answer.
    capacity: RunTask answers HTTP 200 with ``failures`` RESOURCE:CPU.
    start_failure: the task is accepted and ends as TaskFailedToStart.
    operations: where the first three apply; the last two are RunTask's by nature.
    """

    throttle: float = 0.0
    server_error: float = 0.0
    accept_then_drop: float = 0.0
    capacity: float = 0.0
    start_failure: float = 0.0
    seed: int = 0
    operations: tuple[str, ...] = ("RunTask", "StopTask", "DescribeTasks", "ListTasks")

    def __post_init__(self) -> None:
        for name in ("throttle", "server_error", "accept_then_drop", "capacity", "start_failure"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"fault {name}: expected a probability from 0 to 1, found {value!r}")


@dataclass(frozen=True, kw_only=True)
class EventFaultOptions:
    """Probabilities (0 to 1) of what happens to an event; the same seed and events give the same faults.

    drop: it is lost. double: it is sent twice. delay: it comes up to ``delay_seconds`` late.
    reorder: it is held back for up to a second, so that later ones overtake it.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    delay_seconds: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "delay", "reorder"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"event fault {name}: expected a probability from 0 to 1, found {value!r}")


@dataclass(frozen=True, kw_only=True)
class LocalEcsOptions:
    """How one local ECS behaves. Times are seconds; the defaults of time are those AWS documents.

    port: 0 takes a free one.
    log_dir: one ``<task id>.log`` a task; None is a temporary directory that goes when the server stops in order.
    clusters, task_definition, container_name: what exists from the start.
    latency_seconds: of each call, half of it before the effect and half after.
    run_task_quota: shared by RunTask and StopTask (AWS: 40 a second, burst 100); None is no limit.
    describe_tasks_quota: shared by DescribeTasks and ListTasks (AWS: 20 a second, burst 100); None is no limit.
    startup_delay_seconds: from the call to the start of the command, half PROVISIONING, half PENDING.
    shutdown_delay_seconds: DEPROVISIONING.
    stop_timeout_seconds: from SIGTERM to SIGKILL where the task definition has no stopTimeout.
    retention_seconds: how long a stopped task can be described.
    client_token_seconds, client_token_after_stop_seconds: a clientToken is known for the shorter of the first
    since the call and the second since the task stopped.
    event_queue_url: the URL of an SQS queue that gets an event for each change of a task, as EventBridge sends them.
    """

    port: int = 0
    region: str = "us-east-1"
    account: str = "123456789012"
    log_dir: Path | None = None
    clusters: tuple[str, ...] = ("default", "local")
    task_definition: str = "local"
    container_name: str = "main"
    latency_seconds: float = 0.0
    run_task_quota: Quota | None = None
    describe_tasks_quota: Quota | None = None
    faults: FaultOptions = field(default_factory=FaultOptions)
    startup_delay_seconds: float = 0.0
    shutdown_delay_seconds: float = 0.0
    stop_timeout_seconds: float = 30.0
    retention_seconds: float = 3600.0
    client_token_seconds: float = 86400.0
    client_token_after_stop_seconds: float = 3600.0
    event_queue_url: str | None = None
    event_faults: EventFaultOptions = field(default_factory=EventFaultOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port: expected 0 to 65535, found {self.port!r}")
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name.endswith("_seconds") and not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"{option.name}: expected a number of seconds >= 0, found {value!r}")
        for name in (*self.clusters, self.task_definition, self.container_name):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"expected a name of letters, digits, _ and - (at most 255), found {name!r}")
