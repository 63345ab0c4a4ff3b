"""The services of a worker, stepped by a test: its launcher, poller and sweeper are the real ones."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable
from functools import partial

from ecs_queue.config import Config
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.envelope import read_priority
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import Telemetry
from ecs_queue.testing.broker import MemoryBroker, MemoryDelivery
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import FairQueue, Job, JobKind
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.sweeper import Sweeper
from ecs_queue.worker.thread_pool import LaunchThreadPool

_TARGET = Target("us-east-1", None, None, "testing")
#: As many jobs run at a time.
_CAPACITY = 10_000


class InlinePool(LaunchThreadPool):
    """Runs jobs in the caller's thread, in the order and at the rate of a worker's threads; it has none itself."""

    def run_due(self) -> float:
        """Run all jobs that may run now; return the seconds until one that waits for a token may, infinity for none.

        What the test's function raises, this raises.
        """
        while not isinstance(work := self._next_work(), float):
            self._perform(work)
        return work

    def _wake_one(self) -> None:
        """Start no thread."""

    def _run_job(self, job: Job) -> None:
        try:
            job.run()
        finally:
            self._running -= 1
            self._running_stops -= job.kind is JobKind.STOP


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
        #: Seconds until a request that waits for its queue's `launch_rate` may be launched; infinity for none.
        self.token_delay = math.inf
        self._queues = sorted({profile.queue for profile in config.profiles()})  # their limits are known from the start
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
        pool = self._pool = InlinePool(_CAPACITY, context.outages, context.token_cache, fair_queue)
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
            self._pool.submit(self._make_job(delivery))
        self._pool.run_due()
        self._poller.step()
        self._sweeper.step()
        self._context.admission.step()  # a task that has ended may make room
        self.token_delay = self._pool.run_due()
        for queue in self._queues:  # as a worker does: a full or paused queue keeps its messages in the broker
            if not self._context.admission.may_launch(queue):
                self._pool.drop(queue, JobKind.MESSAGE)

    def _make_job(self, delivery: MemoryDelivery) -> Job:
        priority, rate_limit = read_priority(delivery.body), self._context.rate_limit_for(delivery.queue)
        handle = partial(self._handle, delivery)
        return Job(handle, JobKind.MESSAGE, delivery.queue, priority, rate_limit, delivery.requeue_at_front)

    def _handle(self, delivery: MemoryDelivery) -> None:
        if not self._launcher.handle_message(delivery):
            delivery.requeue()
