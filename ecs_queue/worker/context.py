"""What the services of one worker share: configuration, ledger, ECS, limits, clock, ids and randomness."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ecs_queue.config import Config, Profile
from ecs_queue.config.keyring import open_keyring, runner_keys
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import ConfigError
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol.decisions import NextAction, next_action
from ecs_queue.protocol.ecs_results import EcsError
from ecs_queue.protocol.operations import ClaimRequest, ResultCode
from ecs_queue.protocol.record import Record, build_started_by
from ecs_queue.protocol.retry import Backoff
from ecs_queue.runs.runner_key import RunnerKeys
from ecs_queue.runtask.capacity import (
    LaunchQuota,
    effective_capacity,
    launch_quota,
    leaves_capacity_to_the_cluster,
    profile_launch_quota,
)
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.admission import Admission
from ecs_queue.worker.capacity_fallback import CapacityFallback
from ecs_queue.worker.circuit_breaker import CircuitBreakers
from ecs_queue.worker.held_tasks import HeldTasks
from ecs_queue.worker.outages import Outages
from ecs_queue.worker.poison import PoisonGuard
from ecs_queue.worker.poll_schedule import build_poll_schedule
from ecs_queue.worker.rate_limiter import RateLimit, RateLimiter, TokenCache, stop_task_reserve
from ecs_queue.worker.record_verification import RecordVerifier
from ecs_queue.worker.tracing import Tracing

#: How long a worker keeps unused RunTask tokens, which it fetches for free threads. Their launches may have been
#: cancelled, by a pause say, and meanwhile the bucket may have filled up to a whole burst. Seconds.
_RUN_TASK_TOKEN_TTL = 0.25
#: The same of a queue's own tokens: they come slowly, and must not expire while their launch waits for its account's.
_QUEUE_TOKEN_TTL = 5.0


@dataclass(kw_only=True, eq=False, repr=False)
class WorkerContext:
    """The fields are given; the limiters, circuit breakers and the other shared parts are built from them.

    Attributes:
        target_for: Returns the target of a queue; raises ConfigError.
        publish_result: Publishes the result of a record that has ended.
        monotonic: The worker's own clock, in seconds.
        wait_for_stop: Waits up to that number of seconds; returns whether the worker is stopping.
        tracing: Exports spans, if the worker does.
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
    tracing: Tracing = field(default_factory=Tracing)

    def __post_init__(self) -> None:
        """Build the shared parts."""
        config, ledger = self.config, self.ledger
        self.outages = Outages(self.telemetry, self.monotonic, config.broker_url == config.ledger_url)
        tokens = self.token_cache = TokenCache(ledger, self.monotonic, self.telemetry)
        rate, burst = config.run_task_rate, config.run_task_burst
        self.run_task_limiter = RateLimiter(
            tokens, "run_task", rate, burst, stop_task_reserve(burst), _RUN_TASK_TOKEN_TTL
        )
        self.stop_task_limiter = RateLimiter(tokens, "run_task", rate, burst)  # the same bucket, without a reserve
        self.spot_limiter = RateLimiter(tokens, LaunchQuota.FARGATE_SPOT, rate, burst, 0, _RUN_TASK_TOKEN_TTL)
        self.read_limiter = RateLimiter(
            tokens, "describe_tasks", config.describe_tasks_rate, config.describe_tasks_burst
        )
        self._cluster_strategies: dict[str, tuple[dict[str, Any], ...]] = {}
        self.capacity_fallback = CapacityFallback(ledger, config, self.monotonic, self.telemetry)
        self.poison_guard = PoisonGuard(ledger, config.max_deliveries)
        self.circuit_breakers = CircuitBreakers(self.monotonic, self.telemetry, self._encode_present_target)
        self.admission = Admission(ledger, config, self.circuit_breakers, self.queues)
        self.poll_schedule = build_poll_schedule(ledger, config, self.monotonic, self.telemetry)
        self.held_tasks = HeldTasks(self.monotonic, config.lease_seconds, is_enabled=not config.uses_events())
        self.backoff = Backoff(config.retry_base_seconds, config.retry_cap_seconds)
        self.keyring = open_keyring(config)
        self._runner_keys: dict[str, RunnerKeys] = {}
        self.verifier = RecordVerifier(self.keyring, self.target_for)

    def runner_keys(self, queue: str) -> RunnerKeys:
        """Return the keys of a queue's runners."""
        if queue not in self._runner_keys:
            self._runner_keys[queue] = RunnerKeys(runner_keys(self.config, queue))
        return self._runner_keys[queue]

    def is_warm(self, queue: str) -> bool:
        """Return whether requests of this queue may share runners."""
        return self.config.profile(queue).warm_seconds > 0

    def profile(self, queue: str, variant: int = 1) -> Profile:
        """Return a queue's profile, with the default strategy of its cluster if that was asked for.

        `variant` is the number of one of its capacity's variants.
        """
        profile = self.config.profile(queue)
        strategy = self._cluster_strategies.get(profile.queue)
        return (profile.with_cluster_strategy(strategy) if strategy else profile).variant(variant)

    def variant_target(self, queue: str, variant: int) -> Target:
        """Return where launches on this variant of the queue's capacity go; raises ConfigError."""
        target, profile = self.target_for(queue), self.config.profile(queue)
        if not 1 < variant <= profile.variants:
            return target
        chosen = profile.capacity_fallback[variant - 2]
        return replace(target, cluster=chosen.cluster or target.cluster, region=chosen.region_name or target.region)

    def present_target(self, queue: str) -> Target:
        """Return where the queue's launches go now, as far as this worker knows; raises ConfigError."""
        return self.variant_target(queue, self.capacity_fallback.known_variant(queue))

    def ask_for_cluster_strategy(self, queue: str) -> EcsError | None:
        """Ask the queue's cluster for its default strategy, if the profile leaves the capacity to it.

        Returns:
            Why it is not known; until it is, a launch takes FARGATE, as on a cluster without one.
        """
        profile = self.config.profile(queue)
        try:
            target = self.target_for(queue)
        except ConfigError:
            return None
        if not (leaves_capacity_to_the_cluster(profile) and target.cluster):
            return None
        found = self.gateway.default_strategy(target)
        if isinstance(found, EcsError):
            return found
        self._cluster_strategies[profile.queue] = found
        return None

    def rate_limit_for(self, queue: str) -> RateLimit | None:
        """Return the rate limit of a launch in this queue; None without a limit, or without a target to call."""
        try:
            account = self.launch_limiter(queue).limit_for(self.present_target(queue))
        except ConfigError:
            return None
        return self._queue_limit(queue, account)

    def _queue_limit(self, queue: str, account: RateLimit | None) -> RateLimit | None:
        profile = self.config.profile(queue)
        if not profile.launch_rate:
            return account
        bucket = f"launch_rate:{profile.queue}"
        return RateLimit(bucket, profile.launch_rate, profile.launch_burst, 0, _QUEUE_TOKEN_TTL, account)

    def return_launch_token(self, queue: str, target: Target) -> None:
        """Give back the tokens of a launch that makes no call: its account's, and its queue's if that has a rate."""
        limiter = self.launch_limiter(queue)
        limiter.return_token(target)
        account = limiter.limit_for(target)
        own = self._queue_limit(queue, account)
        if own is not None and own is not account:
            self.token_cache.return_token(own)

    def launch_limiter(self, queue: str) -> RateLimiter:
        """Return the limiter of the launches in this queue, as far as no request chooses other capacity."""
        variant = self.capacity_fallback.known_variant(queue)
        return self._limiter_of(profile_launch_quota(self.profile(queue, variant)))

    def call_limiter(self, queue: str, run_task_kwargs: Mapping[str, Any]) -> RateLimiter:
        """Return the limiter of a call with these arguments for a request of this queue."""
        return self._limiter_of(launch_quota(effective_capacity(self.profile(queue), run_task_kwargs)))

    def _limiter_of(self, quota: LaunchQuota) -> RateLimiter:
        return self.spot_limiter if quota is LaunchQuota.FARGATE_SPOT else self.run_task_limiter

    @property
    def launches_on_spot(self) -> bool:
        """Whether a queue of this worker launches on Fargate Spot."""
        profiles = [self.profile(queue, number + 1) for queue in self.queues for number in range(self._variants(queue))]
        return any(profile_launch_quota(profile) is LaunchQuota.FARGATE_SPOT for profile in profiles)

    def _variants(self, queue: str) -> int:
        return self.config.profile(queue).variants

    def _encode_present_target(self, queue: str) -> str:
        try:
            return self.present_target(queue).encode()
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
        if code is ResultCode.BROKEN:
            self.telemetry.emit("ledger.record_broken", id=record_id, operation=operation)
        action = next_action(operation, code)
        self.telemetry.emit(
            "decision.next_action", id=record_id, operation=operation, code=code.value, next_action=action.value
        )
        return action
