"""The services of a worker, stepped by a test: its launcher, poller and sweeper are the real ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from functools import partial

from ecs_queue.config import Config
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import Telemetry
from ecs_queue.testing.broker import MemoryBroker
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import FairQueue, Job, JobKind
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.sweeper import Sweeper
from ecs_queue.worker.thread_pool import LaunchThreadPool

_TARGET = Target("us-east-1", None, None, "testing")
#: As many requests are launched in one round, in the order of their messages.
_CAPACITY = 10_000


class InlinePool(LaunchThreadPool):
    """Runs each job at once, in the caller's thread; it has no threads, and no rate limit."""

    def submit(self, job: Job) -> None:
        """Run the job."""
        job.run()

    @property
    def free_threads(self) -> int:
        """See `LaunchThreadPool`."""
        return _CAPACITY

    def remaining_capacity(self, queue: str, kind: JobKind) -> int:
        """See `LaunchThreadPool`."""
        return _CAPACITY


class SteppedWorker:
    """A worker of all queues, without threads."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        broker: MemoryBroker,
        gateway: EcsGateway,
        clock: Callable[[], float],
        on_end: Callable[[Record], None],
    ) -> None:
        """Build the services; `on_end` gets the record of each request that has ended."""
        ids = map(str, itertools.count(1))
        self._broker = broker
        self._queues: list[str] = []
        context = self._context = WorkerContext(
            config=config,
            worker_name="testing",
            queues=self._queues,
            ledger=ledger,
            gateway=gateway,
            target_for=lambda queue: _TARGET,
            publish_result=on_end,
            telemetry=Telemetry(),
            monotonic=clock,
            wait_for_stop=lambda seconds: False,
            new_id=partial(next, ids),
            rng=random.Random(1),
        )
        fair_queue = FairQueue(lambda queue: config.profile(queue).weight, context.admission)
        pool = InlinePool(config.concurrency, context.outages, context.token_cache, fair_queue)
        self._launcher = Launcher(context)
        self._poller = Poller(context, pool, self._launcher.recover)
        self._sweeper = Sweeper(context, self._launcher, pool, lambda queue: True)

    def serve(self, queues: Iterable[str]) -> None:
        """Serve these queues from now on, also for requests of which no message announces anything."""
        self._queues += sorted(set(queues).difference(self._queues))

    def step(self) -> None:
        """Take all messages, launch what is due, follow the tasks, and end what has expired."""
        deliveries = self._broker.take()
        self.serve(delivery.queue for delivery in deliveries)
        self._context.admission.step()
        for delivery in deliveries:
            self._launcher.handle_message(delivery)
        self._sweeper.step()
        self._poller.step()
