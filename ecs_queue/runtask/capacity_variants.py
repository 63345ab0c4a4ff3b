"""The variants of `capacity_fallback`: on which other capacity a queue's tasks may be launched (docs/policies.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ecs_queue.error_text import error_text

#: AWS's own lists of this kind are as short: a strategy has at most 20 providers, a queue of Batch 3 environments.
MAX_VARIANTS = 5
#: What of `run_task_kwargs` would override every variant.
OVERRIDING_KWARGS = ("launchType", "capacityProviderStrategy", "platformVersion", "networkConfiguration", "cluster")


class CapacityVariant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keys of a profile that a variant sets; None leaves the queue's own.

    A variant that sets one of `launch_type` and `capacity_provider_strategy` does not have the queue's other one.
    """

    launch_type: str | None = None
    capacity_provider_strategy: tuple[dict[str, Any], ...] | None = None
    platform_version: str | None = None
    subnets: tuple[str, ...] | None = None
    security_groups: tuple[str, ...] | None = None
    assign_public_ip: bool | None = None
    cluster: str | None = None
    region_name: str | None = None

    @property
    def names_capacity(self) -> bool:
        """Whether it says itself what its tasks run on."""
        return bool(self.launch_type or self.capacity_provider_strategy)

    @property
    def is_elsewhere(self) -> bool:
        """Whether its tasks are started in another cluster or Region."""
        return bool(self.cluster or self.region_name)

    def changes(self) -> dict[str, Any]:
        """Return the fields of a profile that differ with it."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        found = {name: value for name, value in given.items() if value is not None}
        if self.launch_type:
            found["capacity_provider_strategy"] = None
        elif self.capacity_provider_strategy is not None:
            found["launch_type"] = None
        if self.is_elsewhere:
            found["cluster_strategy"] = ()  # that of the queue's own cluster
        return found


def parse_variants(value: object) -> tuple[CapacityVariant, ...]:
    """Return the variants of a decoded JSON list.

    Raises:
        ValueError: They are none; one sentence says which, and what was expected.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(f"expected a list of variants, found {type(value).__name__}")
    if len(value) > MAX_VARIANTS:
        raise ValueError(f"expected at most {MAX_VARIANTS} variants, found {len(value)}")
    return tuple(_parse_variant(f"variant {number}", each) for number, each in enumerate(value, 2))


def _parse_variant(which: str, value: object) -> CapacityVariant:
    members = ", ".join(CapacityVariant.__struct_fields__)
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{which}: expected an object with one of {members}, found {value!r:.80}")
    try:
        variant = msgspec.convert(value, CapacityVariant)
    except msgspec.ValidationError as error:
        text, _, path = error_text(error).partition(" - at `$.")
        raise ValueError(f"{which}: {path.rstrip('`') + ': ' if path else ''}{text}; members are {members}") from None
    if variant.launch_type and variant.capacity_provider_strategy is not None:
        raise ValueError(f"{which}: expected launch_type or capacity_provider_strategy, found both")
    return variant
