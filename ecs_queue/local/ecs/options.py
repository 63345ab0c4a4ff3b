"""Options of a local ECS: port, latency, quotas, injected faults; and the environment that uses it."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ecs_queue.errors import ConfigError
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.runs.runner_options import CALL_KEY_VARIABLE, CALL_URL_VARIABLE, KEY_VARIABLE, URL_VARIABLE

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_]{16,128}")


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A token bucket: `burst` calls at once, refilled by `rate` calls per second."""

    rate: float
    burst: float

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ConfigError(f"quota rate: expected calls a second > 0, found {self.rate!r}")
        if not self.burst >= 1:
            raise ConfigError(f"quota burst: expected a number of calls >= 1, found {self.burst!r}")


#: In the order in which they are drawn.
CALL_FAULTS = ("throttle", "server_error", "accept_then_drop")
LAUNCH_FAULTS = ("denied", "capacity", "capacity_error", "capacity_stop", "start_failure")
FAULT_NAMES = CALL_FAULTS + LAUNCH_FAULTS


@dataclass(frozen=True, kw_only=True)
class FaultOptions:
    """Probabilities (0 to 1) of injected faults. The same seed and calls give the same faults.

    Attributes:
        throttle: ThrottlingException, without effect.
        server_error: HTTP 500 ServerException, without effect.
        accept_then_drop: the call has its effect, but the connection closes without a response.
        denied: RunTask raises AccessDeniedException: the caller may not call it.
        capacity: RunTask returns HTTP 200 with `failures` RESOURCE:CPU.
        capacity_error: RunTask raises ClientException for a lack of capacity.
        capacity_stop: RunTask succeeds and the task ends as TaskFailedToStart for a lack of capacity.
        start_failure: RunTask succeeds and the task ends as TaskFailedToStart, since its image cannot be pulled.
        seconds: the faults above stop after this time since the start; None is never.
        operations: the operations to which the first three apply.
        denied_access_key_ids: callers that may not call RunTask, whatever the time.
        protected_roles: ARNs of roles that no caller may pass to a task.
    """

    throttle: float = 0.0
    server_error: float = 0.0
    accept_then_drop: float = 0.0
    denied: float = 0.0
    capacity: float = 0.0
    capacity_error: float = 0.0
    capacity_stop: float = 0.0
    start_failure: float = 0.0
    seed: int = 0
    seconds: float | None = None
    denied_access_key_ids: tuple[str, ...] = ()
    protected_roles: tuple[str, ...] = ()
    operations: tuple[str, ...] = ("RunTask", "StopTask", "DescribeTasks", "ListTasks")

    def __post_init__(self) -> None:
        for name in FAULT_NAMES:
            _check_probability(f"fault {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class EventFaultOptions:
    """Probabilities (0 to 1) of faults of an event. The same seed and events give the same faults.

    Attributes:
        drop: the event is lost.
        duplicate: it is sent twice.
        delay: it comes up to `delay_seconds` late.
        reorder: it is delayed for up to a second, so that later events overtake it.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    delay_seconds: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "delay", "reorder"):
            _check_probability(f"event fault {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True, repr=False)
class LocalEcsOptions(PayloadRepr):
    """How one local ECS behaves. Times are seconds; their defaults are those that AWS documents.

    Attributes:
        port: 0 chooses a free port.
        access_key_id: the AWS_ACCESS_KEY_ID that every call must be signed with; None lets every process of this
            machine call, which is for runners that run no commands.
        log_dir: for one `<task id>.log` per task; None uses a temporary directory that is removed on `stop`.
        clusters, task_definition, container_name: what exists from the start.
        runner_environment: variables that only the containers of runners get: what would be secrets of their task
            definition.
        latency_seconds: of each call, half of it before the effect and half after.
        receive_timeout_seconds: the time limit for receiving a header, and then for receiving the body.
        run_task_quota: shared by RunTask and StopTask (AWS: 40 per second, burst 100); None is no limit.
        describe_tasks_quota: shared by DescribeTasks and ListTasks (AWS: 20 per second, burst 100); None is no limit.
        provision_seconds: shortest and longest time from RunTask to the start of the command, half PROVISIONING, half
            PENDING. Each task draws its own, uniformly; the seed is that of the faults. Fargate takes some 30 to 90 s.
        shutdown_delay_seconds: DEPROVISIONING.
        stop_timeout_seconds: from SIGTERM to SIGKILL if the task definition has no stopTimeout.
        retention_seconds: how long a stopped task can be described.
        client_token_seconds, client_token_after_stop_seconds: a clientToken is known for the shorter of the first since
            the call and the second since the task stopped.
        checks_region: calls that are signed for another Region are refused, as by AWS's endpoints.
        constant_version: every task keeps version 1, as on some stand-ins for ECS.
        event_queue_url: an SQS queue that gets an event for each change of a task, as EventBridge sends them.
        event_faults: faults of these events.
    """

    port: int = 0
    access_key_id: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    account: str = "123456789012"
    log_dir: Path | None = None
    clusters: tuple[str, ...] = ("default", "local")
    task_definition: str = "local"
    container_name: str = "main"
    runner_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    latency_seconds: float = 0.0
    receive_timeout_seconds: float = 10.0
    run_task_quota: Quota | None = None
    describe_tasks_quota: Quota | None = None
    faults: FaultOptions = field(default_factory=FaultOptions)
    provision_seconds: tuple[float, float] = (0.0, 0.0)
    shutdown_delay_seconds: float = 0.0
    stop_timeout_seconds: float = 30.0
    retention_seconds: float = 3600.0
    client_token_seconds: float = 86400.0
    client_token_after_stop_seconds: float = 3600.0
    checks_region: bool = False
    constant_version: bool = False
    event_queue_url: str | None = None
    event_faults: EventFaultOptions = field(default_factory=EventFaultOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port: expected 0 to 65535, found {self.port!r}")
        if self.access_key_id is not None and not _ACCESS_KEY_ID.fullmatch(self.access_key_id):
            raise ConfigError("access_key_id: expected 16 to 128 letters, digits and _")
        for option in fields(self):
            value = getattr(self, option.name)
            times = value if isinstance(value, tuple) else (value,)
            if option.name.endswith("_seconds") and not all(time >= 0 and math.isfinite(time) for time in times):
                raise ConfigError(f"{option.name}: expected a number of seconds >= 0, found {value!r}")
        if self.provision_seconds[0] > self.provision_seconds[1]:
            raise ConfigError(f"provision_seconds: expected the shortest time first, found {self.provision_seconds!r}")
        for name in (*self.clusters, self.task_definition, self.container_name):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"expected a name of letters, digits, _ and - (at most 255), found {name!r}")


def new_access_key_id() -> str:
    """Return a random access key id that cannot be guessed."""
    return f"LOCAL{secrets.token_hex(16).upper()}"


def secrets_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are secrets of the task definition elsewhere, for `runner_environment`."""
    names = (URL_VARIABLE, KEY_VARIABLE, CALL_URL_VARIABLE, CALL_KEY_VARIABLE)
    return {name: environment[name] for name in names if name in environment}


def local_environment(endpoint_url: str, redis_url: str, options: LocalEcsOptions | None = None) -> dict[str, str]:
    """Return the variables with which ecs-queue and boto3 use a local stack.

    The credentials are no real ones, so that no real account can be reached. The local ECS checks the access key's id,
    if it has one, and ignores the secret part.
    """
    options = options or LocalEcsOptions()
    return {
        "AWS_ENDPOINT_URL_ECS": endpoint_url,
        "AWS_REGION": options.region,
        "AWS_DEFAULT_REGION": options.region,
        "AWS_ACCESS_KEY_ID": options.access_key_id or "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AIRFLOW__ECS_QUEUE__BROKER_URL": redis_url,
        "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": options.clusters[-1],
        "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": options.task_definition,
        "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": options.container_name,
        "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
        "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-local",
    }


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: expected a probability from 0 to 1, found {value!r}")
