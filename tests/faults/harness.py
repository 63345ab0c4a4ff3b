"""Workers and clients of this process on a real server, over a fake ECS that the test controls."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Self

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.ledger import open_ledger
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.worker import Worker
from tests.fake_ecs import FakeEcs
from tests.wait import wait_until
from tests.worker.harness import make_config


class FaultHarness:
    """One namespace on the server at `url`, with these keys of [ecs_queue]. `start_worker` starts workers."""

    def __init__(self, url: str, **keys: Any) -> None:
        known: dict[str, Any] = {
            "broker_url": url,
            "lease_seconds": 5,
            "settle_seconds": 2,
            "sweep_after_seconds": 1,
            "visibility_timeout": 5,
            "retry_base_seconds": 0.1,
            "retry_cap_seconds": 0.5,
            "socket_timeout_seconds": 2,
        }
        self.config = make_config(None, **(known | keys))
        self.ecs = FakeEcs(time.time)
        self.emitted: list[tuple[str, dict[str, Any]]] = []
        self._stack = ExitStack()
        self.queue = self.make_client()

    def make_client(self, **named: Any) -> EcsQueue:
        """Return a client with its own connections."""
        client = EcsQueue(self.config, open_broker(self.config), open_ledger(self.config), **named)
        return self._stack.enter_context(client)

    def start_worker(self, *queues: str) -> Worker:
        """Start a worker with its own connections."""
        broker, ledger = open_broker(self.config), open_ledger(self.config)
        self._stack.callback(ledger.close)
        self._stack.callback(broker.close)
        telemetry = Telemetry(lambda name, fields: self.emitted.append((name, fields)))
        worker = Worker(
            self.config, broker, ledger, queues=queues or ("default",), telemetry=telemetry, gateway=self.ecs
        )
        worker.start()
        self._stack.callback(_stop_worker, worker)
        return worker

    def submit(self, *ids: str, **fields: Any) -> None:
        """Submit requests with these ids."""
        self.queue.submit_many([{"id": record_id, "command": ["true"], **fields} for record_id in ids])

    def states(self, *ids: str) -> list[State | None]:
        """Return the states in the ledger."""
        return [record.state if record else None for record in self.queue.ledger.get(ids)]

    def reason(self, record_id: str) -> str:
        """Return the record's reason."""
        return self.queue.status(record_id).reason

    def wait_for_state(self, state: State, *ids: str) -> None:
        """Wait until all are in this state."""
        wait_until(lambda: self.states(*ids) == [state] * len(ids), f"{ids} are {state}: {self.states(*ids)}")

    def end_all_tasks(self) -> None:
        """End all tasks with exit code 0."""
        for task in self.ecs.live_tasks():
            self.ecs.finish(task["taskArn"])

    def service_failures(self, text: str) -> list[str]:
        """Return the reasons of failed services that contain `text`: of every failure, not only those with a line."""
        failures = ("service.failed", "service.retried")
        reasons = [str(fields["reason"]) for name, fields in list(self.emitted) if name in failures]
        return [reason for reason in reasons if text in reason]

    def started_by_values(self) -> list[str]:
        """Return the startedBy of every task, sorted."""
        return sorted(task["startedBy"] for task in self.ecs.tasks.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _stop_worker(worker: Worker) -> None:
    worker.stop()
    worker.join()
