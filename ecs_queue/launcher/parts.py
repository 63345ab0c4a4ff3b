"""What a worker's services have in common."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ecs_queue.config import Config
from ecs_queue.core.keyring import Keyring
from ecs_queue.core.record import Record
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import ConfigError
from ecs_queue.keyring import open_keyring
from ecs_queue.launcher.circuit import Circuits
from ecs_queue.launcher.gates import Gates
from ecs_queue.launcher.inflight import InFlight
from ecs_queue.launcher.pace import Pace
from ecs_queue.launcher.quota import Permit, Quota
from ecs_queue.launcher.suspects import Suspects
from ecs_queue.launcher.trust import Trust
from ecs_queue.ledger.base import Ledger
from ecs_queue.telemetry import Telemetry


@dataclass(frozen=True)
class Parts:
    """What a worker's services work with. Clocks, ids and randomness are handed in with them."""

    config: Config
    worker: str
    ledger: Ledger
    gateway: EcsGateway
    target_for: Callable[[str], Target]  # queue -> target; ConfigError
    run_quota: Quota
    stop_quota: Quota  # of the same bucket, and all of it
    read_quota: Quota
    suspects: Suspects
    circuits: Circuits
    gates: Gates
    in_flight: InFlight
    pace: Pace
    publish: Callable[[Record], None]  # announce the result of a record that has ended
    telemetry: Telemetry
    monotonic: Callable[[], float]
    rest: Callable[[float], bool]  # seconds -> whether the worker is stopping
    new_id: Callable[[], str]
    rng: random.Random

    @cached_property
    def keyring(self) -> Keyring:
        """The keys of the configuration."""
        return open_keyring(self.config)

    @cached_property
    def trust(self) -> Trust:
        """What of a record may be believed."""
        return Trust(self.keyring, self.target_for)

    def permit_for(self, queue: str) -> Permit | None:
        """What a launch of this queue needs. None as well where no target is known: then there will be no call."""
        try:
            return self.run_quota.permit(self.target_for(queue))
        except ConfigError:
            return None
