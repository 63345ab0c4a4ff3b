"""What a worker's services have in common."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ecs_queue.config import Config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import ConfigError
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.keyring import Keyring
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.admission import Admission
from ecs_queue.worker.circuit_breaker import CircuitBreakers
from ecs_queue.worker.in_flight import InFlightTasks
from ecs_queue.worker.poison import PoisonGuard
from ecs_queue.worker.poll_schedule import PollSchedule
from ecs_queue.worker.rate_limiter import RateLimit, RateLimiter
from ecs_queue.worker.record_verification import RecordVerifier


@dataclass(frozen=True)
class WorkerContext:
    """What a worker's services work with. Clocks, ids and randomness are handed in with them."""

    config: Config
    worker_name: str
    ledger: Ledger
    gateway: EcsGateway
    target_for: Callable[[str], Target]  # queue -> target; ConfigError
    run_task_limiter: RateLimiter
    stop_task_limiter: RateLimiter  # of the same bucket, and all of it
    read_limiter: RateLimiter
    poison_guard: PoisonGuard
    circuit_breakers: CircuitBreakers
    admission: Admission
    in_flight: InFlightTasks
    poll_schedule: PollSchedule
    publish_result: Callable[[Record], None]  # announce the result of a record that has ended
    telemetry: Telemetry
    monotonic: Callable[[], float]
    wait_for_stop: Callable[[float], bool]  # seconds -> whether the worker is stopping
    new_id: Callable[[], str]
    rng: random.Random

    @cached_property
    def keyring(self) -> Keyring:
        """The keys of the configuration."""
        return open_keyring(self.config)

    @cached_property
    def verifier(self) -> RecordVerifier:
        """What of a record may be believed."""
        return RecordVerifier(self.keyring, self.target_for)

    def rate_limit_for(self, queue: str) -> RateLimit | None:
        """What a launch of this queue needs. None as well where no target is known: then there will be no call."""
        try:
            return self.run_task_limiter.limit_for(self.target_for(queue))
        except ConfigError:
            return None
