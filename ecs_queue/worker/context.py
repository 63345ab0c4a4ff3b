"""What the services of one worker share: configuration, ledger, ECS, limits, clock, ids and randomness."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ecs_queue.config import Config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import ConfigError
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol.decisions import NextAction, next_action
from ecs_queue.protocol.operations import ClaimRequest, ResultCode
from ecs_queue.protocol.record import Record, build_started_by
from ecs_queue.protocol.retry import Backoff
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.admission import Admission
from ecs_queue.worker.circuit_breaker import CircuitBreakers
from ecs_queue.worker.poison import PoisonGuard
from ecs_queue.worker.poll_schedule import build_poll_schedule
from ecs_queue.worker.rate_limiter import RateLimit, RateLimiter, TokenCache, stop_task_reserve
from ecs_queue.worker.record_verification import RecordVerifier

#: How long a worker keeps unused RunTask tokens, which it fetches for free threads. Their launches may have been
#: cancelled, by a pause say, and meanwhile the bucket may have filled up to a whole burst. Seconds.
_RUN_TASK_TOKEN_TTL = 0.25


@dataclass(kw_only=True, eq=False, repr=False)
class WorkerContext:
    """The fields are given; the limiters, circuit breakers and the other shared parts are built from them.

    Attributes:
        target_for: Returns the target of a queue; raises ConfigError.
        publish_result: Publishes the result of a record that has ended.
        monotonic: The worker's own clock, in seconds.
        wait_for_stop: Waits up to that number of seconds; returns whether the worker is stopping.
    """

    config: Config
    worker_name: str
    queues: Sequence[str]
    ledger: Ledger
    gateway: EcsGateway
    target_for: Callable[[str], Target]
    publish_result: Callable[[Record], None]
    telemetry: Telemetry
    monotonic: Callable[[], float]
    wait_for_stop: Callable[[float], bool]
    new_id: Callable[[], str]
    rng: random.Random

    def __post_init__(self) -> None:
        """Build the shared parts."""
        config, ledger = self.config, self.ledger
        tokens = self.token_cache = TokenCache(ledger, self.monotonic, self.telemetry)
        rate, burst = config.run_task_rate, config.run_task_burst
        self.run_task_limiter = RateLimiter(
            tokens, "run_task", rate, burst, stop_task_reserve(burst), _RUN_TASK_TOKEN_TTL
        )
        self.stop_task_limiter = RateLimiter(tokens, "run_task", rate, burst)  # the same bucket, without a reserve
        self.read_limiter = RateLimiter(
            tokens, "describe_tasks", config.describe_tasks_rate, config.describe_tasks_burst
        )
        self.poison_guard = PoisonGuard(ledger, config.max_deliveries)
        self.circuit_breakers = CircuitBreakers(self.monotonic, self.telemetry, self._encode_present_target)
        self.admission = Admission(ledger, config, self.circuit_breakers, self.queues)
        self.poll_schedule = build_poll_schedule(ledger, config, self.monotonic, self.telemetry)
        self.backoff = Backoff(config.retry_base_seconds, config.retry_cap_seconds)
        self.keyring = open_keyring(config)
        self.verifier = RecordVerifier(self.keyring, self.target_for)

    def rate_limit_for(self, queue: str) -> RateLimit | None:
        """Return the rate limit of a launch in this queue; None without a limit, or without a target to call."""
        try:
            return self.run_task_limiter.limit_for(self.target_for(queue))
        except ConfigError:
            return None

    def _encode_present_target(self, queue: str) -> str:
        try:
            return self.target_for(queue).encode()
        except ConfigError:
            return ""

    def started_by(self, record: Record) -> str:
        """Return the `startedBy` of the record's present launch."""
        return build_started_by(self.config.namespace, record.id, record.nonce, record.launch)

    def new_claim_without_args(self) -> ClaimRequest:
        """Return a claim that freezes nothing, for a record of which nothing new is sent."""
        return ClaimRequest(claim=self.new_id(), worker=self.worker_name, args="", target="")

    def decide_next_action(self, operation: str, record_id: str, code: ResultCode) -> NextAction:
        """Return what follows an operation's result; emits the decision."""
        action = next_action(operation, code)
        self.telemetry.emit(
            "decision.next_action", id=record_id, operation=operation, code=code.value, next_action=action.value
        )
        return action
