"""A namespace in memory for the client's tests, with a worker that ends requests on demand."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from ecs_queue.broker import KombuBroker, RequestMessage
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import Config
from ecs_queue.errors import (
    BrokerUnavailable,
)
from ecs_queue.ledger import MemoryLedger, open_ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.operations import ClaimRequest, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.worker.harness import FlakyLedger, make_config

TIMEOUT = 30.0


class FlakyBroker(KombuBroker):
    """Remembers what it published; `is_unavailable` makes every call fail."""

    is_unavailable = False

    def __init__(self, namespace: str) -> None:
        super().__init__("memory://", namespace, visibility_timeout=60.0, socket_timeout=1.0)
        self.published: list[RequestMessage] = []
        self.published_results: list[tuple[str, bytes]] = []
        self.drops_results = False
        self.forgotten_owners: list[str] = []

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        if self.is_unavailable:
            raise BrokerUnavailable
        self.published.extend(messages)
        super().publish_requests(messages)

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if self.is_unavailable:
            raise BrokerUnavailable
        self.published_results.extend(messages)
        if not self.drops_results:
            super().publish_results(messages)

    def delete_result_queue(self, owner: str) -> None:
        if self.is_unavailable:
            raise BrokerUnavailable
        self.forgotten_owners.append(owner)
        super().delete_result_queue(owner)


class ClientHarness:
    """One namespace, its clients, and a worker that ends requests on demand."""

    def __init__(self) -> None:
        self.config = make_config(namespace=f"t{uuid.uuid4().hex[:12]}")
        ledger = open_ledger(self.config)
        assert isinstance(ledger, MemoryLedger)
        self.memory_ledger = ledger
        self.ledger = FlakyLedger(ledger)
        self.broker = FlakyBroker(self.config.namespace)
        self.clients: list[EcsQueue] = []

    def make_client(self, owner: str | None = None, config: Config | None = None) -> EcsQueue:
        self.clients.append(EcsQueue(config or self.config, self.broker, self.ledger, owner=owner))
        return self.clients[-1]

    def finish(self, record_id: str, exit_code: int = 0, publish_result: bool = True) -> Record:
        """A worker runs it to its end."""
        claim_request = ClaimRequest(claim="c", worker="w", args="{}", target="{}")
        claimed = self.memory_ledger.claim(record_id, claim_request).record
        assert claimed is not None
        arn = f"arn:{record_id}"
        self.memory_ledger.launched(record_id, claimed.nonce, claimed.launch, arn, 1.0)
        end = State.FAILED if exit_code else State.SUCCESS
        outcome = TaskUpdate(
            id=record_id, launch=claimed.launch, arn=arn, version=1, last_status="STOPPED", wait=1.0, end_state=end
        )
        record = self.memory_ledger.update_tasks([outcome])[0].record
        assert record is not None
        if publish_result and record.owner:
            self.broker.publish_results([(record.owner, envelope.encode(build_result(record)))])
        return record

    def record(self, record_id: str) -> Record:
        record = self.memory_ledger.get_with_payload([record_id])[0]
        assert record is not None
        return record
