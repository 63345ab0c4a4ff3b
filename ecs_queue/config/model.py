"""The configuration that the rest of the package uses: frozen, typed, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ecs_queue.config.prices import Price
from ecs_queue.config.profile import Profile
from ecs_queue.config.redact import redact_url
from ecs_queue.messages.keyring import SigningKey
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.server_url.iam import IamLogin

DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True, repr=False)
class EffectiveValue(PayloadRepr):
    """One value in effect: its text with secrets redacted, and its origin."""

    section: str
    key: str
    value: str
    origin: str


@dataclass(frozen=True, repr=False)
class Config:
    """`[ecs_queue]` and the profiles, built by `load_config`. `ecs_queue.config.main_keys` documents each key.

    Durations are seconds. Rates are calls per second of all workers. A rate or `max_in_flight` of 0 is no limit.
    """

    broker_url: str
    ledger_url: str
    broker_iam: IamLogin | None
    ledger_iam: IamLogin | None
    namespace: str
    owner_prefix: str | None
    concurrency: int
    run_task_rate: float
    run_task_burst: int
    describe_tasks_rate: float
    describe_tasks_burst: int
    lease_seconds: float
    settle_seconds: float
    call_budget_seconds: float
    connect_timeout_seconds: float
    read_timeout_seconds: float
    http_client: Literal["botocore", "curl"]
    durability: str
    launch_deadline: float
    retention_seconds: float
    max_in_flight: int
    runner_ttl: float
    runner_lost_seconds: float
    stop_timeout: float
    event_queue_url: str | None
    visibility_timeout: float
    max_message_bytes: int
    max_deliveries: int
    sweep_after_seconds: float
    startup_allowance: float
    accept_seconds: float
    acting_user: str | None
    airflow_labels: tuple[str, ...] | None
    airflow_page: Literal["off", "read", "changes"] | None
    retry_base_seconds: float
    retry_cap_seconds: float
    socket_timeout_seconds: float
    #: None: nothing is signed, or encrypted. The first key signs and encrypts, all verify and decrypt.
    signing_keys: tuple[SigningKey, ...] | None
    encryption_keys: tuple[str, ...] | None
    #: For queues whose profile sets none; the profiles have it already.
    allowed_overrides: tuple[str, ...]
    journal: bool
    journal_redaction: Literal["secrets", "environment", "arguments"]
    journal_megabytes: int
    journal_element_bytes: int
    journal_retention_seconds: float
    prices: tuple[Price, ...] | None
    metrics_port: int
    metrics_host: str
    otel_metrics: bool
    otel_traces: bool
    cloudwatch_metrics: bool
    base_profile: Profile
    #: canonical_queue_name(NAME) -> the profile of `[aws_ecs_executor.NAME]`.
    named_profiles: Mapping[str, Profile] = field(hash=False)
    #: Every value in effect; of a named profile only the values that it sets itself.
    effective_values: tuple[EffectiveValue, ...]
    #: The files from which a password or a key was read.
    secret_files: tuple[str, ...] = ()

    def profile(self, queue: str) -> Profile:
        """Return a queue's profile: that of its own section, otherwise `[aws_ecs_executor]`. Any name has one."""
        found = self.named_profiles.get(canonical_queue_name(queue), self.base_profile)
        return found if found.queue == queue else found.for_queue(queue)

    def event_queue_url_for(self, queue: str) -> str:
        """Return the URL of the event queue for this queue's tasks; "" for none."""
        return self.profile(queue).event_queue_url or self.event_queue_url or ""

    def uses_events(self) -> bool:
        """Return whether any profile has an event queue."""
        return any((self.event_queue_url, *(profile.event_queue_url for profile in self.profiles())))

    def profiles(self) -> tuple[Profile, ...]:
        """Return the profile of the queue `default`, then the named profiles by name."""
        names = sorted(name for name in self.named_profiles if name != DEFAULT_QUEUE)
        return (self.profile(DEFAULT_QUEUE), *(self.named_profiles[name] for name in names))

    def __repr__(self) -> str:
        """Show the values without passwords and values of environment variables."""
        shown = {
            name: redact_url(value) if value and name.endswith("_url") else value
            for name, value in vars(self).items()
            if not isinstance(value, Profile | Mapping | tuple)
        }
        shown["profiles"] = [profile.queue for profile in self.profiles()]
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
