"""The options of a chaos run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ecs_queue.local.ecs import FaultOptions, LocalEcsOptions, Quota

#: AWS's quota of Fargate launches: calls a second, and burst.
AWS_RATE, AWS_BURST = 20.0, 100
LEASE_SECONDS = 5.0
VISIBILITY_SECONDS = 5.0
MAX_ATTEMPTS = 3
#: Seconds after the lease or the visibility timeout within which another worker continues.
RECOVERY_GRACE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class ChaosOptions:
    """A chaos run. The fault probabilities are those of a bad day.

    Attributes:
        directory: Holds the server's data and the logs.
        kill_every: Seconds between two kills of a worker.
        server_kills: How often the server, or the cluster's node with the keys, is killed.
        speed: Multiplies AWS's quotas.
        cluster: Whether the server is a cluster, in which a replica takes over from a killed node.
    """

    directory: Path
    tasks: int = 2000
    seed: int = 1
    workers: int = 4
    kill_every: float = 1.0
    server_kills: int = 2
    speed: float = 1.0
    cluster: bool = False

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.workers < 2 or self.speed <= 0:
            raise ValueError("expected tasks >= 1, workers >= 2 and speed > 0")

    @property
    def ecs(self) -> LocalEcsOptions:
        """The local ECS with its quotas and faults."""
        quota = Quota(rate=AWS_RATE * self.speed, burst=AWS_BURST * self.speed)
        faults = FaultOptions(
            accept_then_drop=0.02, server_error=0.02, capacity=0.05, start_failure=0.05, seed=self.seed
        )
        return LocalEcsOptions(
            latency_seconds=0.02, run_task_quota=quota, describe_tasks_quota=quota, faults=faults, log_dir=None
        )

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings of the workers: short leases, and few calls at the same time, so that no call waits long."""
        # More than the quota, as where others use the account, too, so that calls are throttled.
        rate, burst = str(1.25 * AWS_RATE * self.speed), str(int(1.25 * AWS_BURST * self.speed))
        keys = {
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "SETTLE_SECONDS": "5",
            "VISIBILITY_TIMEOUT": str(VISIBILITY_SECONDS),
            "RETRY_CAP_SECONDS": "5",
            "CONCURRENCY": "8",
            "RUN_TASK_RATE": rate,
            "RUN_TASK_BURST": burst,
            "DESCRIBE_TASKS_RATE": rate,
            "DESCRIBE_TASKS_BURST": burst,
            "DURABILITY": "replica" if self.cluster else "server",
        }
        settings = {f"AIRFLOW__ECS_QUEUE__{key}": value for key, value in keys.items()}
        return {**settings, "AIRFLOW__AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS": str(MAX_ATTEMPTS)}
