"""Whole workers, in real time, over a broker and a ledger and a fake ECS."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from ecs_queue.broker import Broker, RequestMessage, open_broker
from ecs_queue.config import Config
from ecs_queue.ledger import Ledger, open_ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import build_submission
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.worker import Worker
from tests.fake_ecs import FakeEcs
from tests.worker.harness import make_config


class LiveWorkerHarness:
    """A broker, a ledger and an ECS, and the workers on them."""

    def __init__(self, **keys: float) -> None:
        self.config = make_config(
            None, namespace=f"t{uuid.uuid4().hex[:12]}", lease_seconds=5, sweep_after_seconds=60, **keys
        )
        self.broker: Broker = open_broker(self.config)
        self.ledger: Ledger = open_ledger(self.config)
        self.ecs = FakeEcs(time.time)
        self.emitted: list[str] = []
        self.workers: list[Worker] = []

    def start_worker(
        self,
        broker: Broker | None = None,
        config: Config | None = None,
        queues: Sequence[str] = ("default",),
    ) -> Worker:
        """A worker that runs."""
        worker = Worker(
            config or self.config,
            broker or self.broker,
            self.ledger,
            queues=queues,
            telemetry=Telemetry(lambda name, fields: self.emitted.append(name)),
            gateway=self.ecs,
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def submit(self, *ids: str, publish: bool = True, queue: str = "default") -> None:
        for record_id in ids:
            request = new_request(id=record_id, command=["true"], now=time.time(), accept_seconds=1000.0, queue=queue)
            body = envelope.encode(request)
            nonce = envelope.compute_nonce(self.config.namespace, body)
            self.ledger.put([build_submission(request, body, nonce, 1000.0)])
            if publish:
                self.broker.publish_requests([RequestMessage(queue, body)])

    def states(self, *ids: str) -> list[State | None]:
        return [record.state if record else None for record in self.ledger.get(ids)]

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join()
