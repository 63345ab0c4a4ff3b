"""The configuration as the rest of the package sees it: frozen, typed, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ecs_queue.config.profile import Profile
from ecs_queue.config.redact import redact_url
from ecs_queue.messages.keyring import SigningKey

DEFAULT_QUEUE = "default"


@lru_cache(maxsize=1024)
def normalize_queue_name(name: str) -> str:
    """A queue's name as it is compared: in lower case, everything but letters and digits as `_`."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One value in effect. `value` is text that may be shown; `origin` says where it came from."""

    section: str
    key: str
    value: str
    origin: str


@dataclass(frozen=True, repr=False)
class Config:
    """`[ecs_queue]` and the profiles, made by `load_config`. What each key means: `ecs_queue.config.keys`.

    Durations are seconds, rates are calls a second of all workers; a rate or `max_in_flight` of 0 is no limit.
    """

    broker_url: str
    ledger_url: str
    namespace: str
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
    durability: str
    launch_deadline: float
    retention_seconds: float
    max_in_flight: int
    event_queue_url: str | None
    visibility_timeout: float
    max_deliveries: int
    sweep_after_seconds: float
    startup_allowance: float
    accept_seconds: float
    retry_base_seconds: float
    retry_cap_seconds: float
    socket_timeout_seconds: float
    #: None: nothing is signed, or encrypted. The first of several is used, all are good.
    signing_keys: tuple[SigningKey, ...] | None
    encryption_keys: tuple[str, ...] | None
    #: Of the queues whose profile has none of its own; the profiles have it already.
    allowed_overrides: tuple[str, ...]
    journal: bool
    journal_megabytes: int
    journal_retention_seconds: float
    base_profile: Profile
    #: normal_queue(NAME) -> the profile of `[aws_ecs_executor.NAME]`
    named_profiles: Mapping[str, Profile] = field(hash=False)
    effective_values: tuple[EffectiveValue, ...]

    def profile(self, queue: str) -> Profile:
        """The profile of a queue: that of its own section, else `[aws_ecs_executor]`.

        Any name is answered.
        """
        found = self.named_profiles.get(normalize_queue_name(queue), self.base_profile)
        return found if found.queue == queue else found.for_queue(queue)

    def event_queue_url_for(self, queue: str) -> str:
        """The URL of the events queue for this queue's tasks; "" for none."""
        own = self.named_profiles.get(normalize_queue_name(queue), self.base_profile).event_queue_url
        return own or self.event_queue_url or ""

    def uses_events(self) -> bool:
        """Whether any profile has an events queue."""
        return any((self.event_queue_url, *(profile.event_queue_url for profile in self.profiles())))

    def profiles(self) -> tuple[Profile, ...]:
        """The profile of the queue `default`, then one for each section of its own, by name."""
        names = sorted(name for name in self.named_profiles if name != DEFAULT_QUEUE)
        return (self.profile(DEFAULT_QUEUE), *(self.named_profiles[name] for name in names))

    def describe(self) -> list[EffectiveValue]:
        """Every value in effect and its origin, secrets hidden.

        Of a named profile only what it sets itself.
        """
        return list(self.effective_values)

    def __repr__(self) -> str:
        """The values in effect; no password and no value of an environment variable."""
        shown = {
            name: redact_url(value) if value and name.endswith("_url") else value
            for name, value in vars(self).items()
            if not isinstance(value, Profile | Mapping | tuple)
        }
        shown["profiles"] = [profile.queue for profile in self.profiles()]
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
