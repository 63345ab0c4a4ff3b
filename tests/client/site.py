"""A namespace in memory for the client's tests, with a launcher that ends requests as it is told."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from ecs_queue.broker import KombuBroker, Outgoing
from ecs_queue.client import EcsQueue
from ecs_queue.core import envelope
from ecs_queue.core.protocol import ClaimOffer, Outcome
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.errors import (
    BrokerUnavailable,
)
from ecs_queue.ledger import MemoryLedger, open_ledger
from tests.launcher.lab import FlakyLedger, config_of

SOON = 30.0


class PickyBroker(KombuBroker):
    """Remembers what it published; `fails` makes every publication fail."""

    fails = False

    def __init__(self, namespace: str) -> None:
        super().__init__("memory://", namespace, visibility_timeout=60.0, socket_timeout=1.0)
        self.published: list[Outgoing] = []
        self.drops_results = False
        self.forgotten: list[str] = []

    def publish_requests(self, messages: Sequence[Outgoing]) -> None:
        if self.fails:
            raise BrokerUnavailable
        self.published.extend(messages)
        super().publish_requests(messages)

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if self.fails:
            raise BrokerUnavailable
        if not self.drops_results:
            super().publish_results(messages)

    def forget_results(self, owner: str) -> None:
        if self.fails:
            raise BrokerUnavailable
        self.forgotten.append(owner)
        super().forget_results(owner)


class Site:
    """One namespace, its clients, and a launcher that ends requests as it is told."""

    def __init__(self) -> None:
        self.config = config_of(namespace=f"t{uuid.uuid4().hex[:12]}")
        ledger = open_ledger(self.config)
        assert isinstance(ledger, MemoryLedger)
        self.memory = ledger
        self.ledger = FlakyLedger(ledger)
        self.broker = PickyBroker(self.config.namespace)
        self.clients: list[EcsQueue] = []

    def client(self, owner: str | None = None) -> EcsQueue:
        self.clients.append(EcsQueue(self.config, self.broker, self.ledger, owner=owner))
        return self.clients[-1]

    def end(self, record_id: str, exit_code: int = 0, announce: bool = True) -> Record:
        """A launcher runs it to its end."""
        offer = ClaimOffer(claim="c", worker="w", args="{}", target="{}")
        claimed = self.memory.claim(record_id, offer).record
        assert claimed is not None
        arn = f"arn:{record_id}"
        self.memory.launched(record_id, claimed.nonce, claimed.launch, arn, 1.0)
        end = State.FAILED if exit_code else State.SUCCESS
        outcome = Outcome(
            id=record_id, launch=claimed.launch, arn=arn, version=1, last_status="STOPPED", wait=1.0, end=end
        )
        record = self.memory.outcomes([outcome])[0].record
        assert record is not None
        if announce and record.owner:
            self.broker.publish_results([(record.owner, envelope.encode(envelope.result_of(record)))])
        return record

    def record(self, record_id: str) -> Record:
        record = self.memory.get([record_id])[0]
        assert record is not None
        return record
