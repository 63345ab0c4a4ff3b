"""A client with a queue and a worker of its own, in memory."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence

from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.client.producer import PreparedRequest
from ecs_queue.client.results import ResultReader
from ecs_queue.config import load_config
from ecs_queue.errors import ResultTimeout
from ecs_queue.ledger import MemoryLedger
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import LIVE_STATES
from ecs_queue.testing.broker import MemoryBroker
from ecs_queue.testing.clock import FakeClock
from ecs_queue.testing.ecs import MemoryEcs, OutcomeFunction, Task, succeed
from ecs_queue.testing.worker import SteppedWorker

_MAIN_CONTAINER = "main"
_ENVIRON = {
    "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://",
    "AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "0",
    "AIRFLOW__ECS_QUEUE__DESCRIBE_TASKS_RATE": "0",
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "testing",
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "testing:1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": _MAIN_CONTAINER,
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
}
#: The steps of the clock during a wait: a second, and later this share of the time that has passed, or since a delay.
_STEP_SECONDS, _STEP_SHARE = 1.0, 0.1
#: How long a call without a timeout waits for an end, beyond the delays of requests. Seconds of the test's clock.
_PATIENCE_SECONDS = 7 * 86400.0


class NothingEnds(AssertionError):  # noqa: N818 - what it says is what the test must know
    """The test waits for the end of a request that never comes: its queue is paused, or its task runs for ever."""


class _SteppedResults(ResultReader):
    """Ends handles in the test's own thread: a call that waits for a result steps the worker and the clock."""

    wait_for: Callable[[Callable[[], bool], float | None], None]

    def start_reading(self) -> None:
        """Start no thread."""

    def prepare_wait(self, timeout: float | None, is_over: Callable[[], bool]) -> float | None:
        """Let the worker work until the wait is over; nothing is left to wait for then."""
        self.check_process()
        self.wait_for(is_over, timeout)
        return 0.0


class MemoryQueue(EcsQueue):
    """An `EcsQueue` without a server, whose worker is stepped by the test. Use it in one thread.

    A call that waits for a result steps the worker and the clock until the result is there: no test sleeps. Code that
    waits in another way (callbacks, `concurrent.futures.wait`, asyncio) needs `eager=True`, or `run()` before it.

    Attributes:
        clock: The time of ledger, worker and ECS.
        launched: The tasks that were launched, in order.
    """

    clock: FakeClock

    def __init__(
        self,
        outcome: OutcomeFunction = succeed,
        *,
        eager: bool = False,
        clock: FakeClock | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Create an empty queue.

        Args:
            outcome: Says of each task how it ends.
            eager: Whether `submit` returns only when everything has ended.
            clock: The clock; a new one.
            environ: Configuration beyond what every launch needs, as variables AIRFLOW__SECTION__KEY.
        """
        config = load_config(environ={**_ENVIRON, **(environ or {})})
        self.clock = FakeClock() if clock is None else clock
        ledger = MemoryLedger(self.clock, ProtocolSettings.from_config(config))
        broker = MemoryBroker()
        ids = (f"request-{number}" for number in itertools.count(1))
        super().__init__(
            config, broker, ledger, owner="testing", clock=self.clock, monotonic=self.clock, new_id=lambda: next(ids)
        )
        results = _SteppedResults(broker, ledger, "", self._sender.put_again, self.keyring, monotonic=self.clock)
        results.wait_for = self._run_until
        self.results = results
        self._ecs = MemoryEcs(self.clock, _MAIN_CONTAINER, outcome)
        self._worker = SteppedWorker(config, ledger, broker, self._ecs, self.clock, self._deliver)
        self._eager = eager
        self._delays: list[float] = []  # a heap of the times before which a request is not launched

    @property
    def launched(self) -> Sequence[Task]:
        """The tasks that were launched, in order."""
        return self._ecs.launched

    def end_with(self, outcome: OutcomeFunction) -> None:
        """Let the tasks that are launched from now on end as this function says."""
        self._ecs.outcome = outcome

    def send(self, prepared_requests: Sequence[PreparedRequest]) -> list[Handle]:
        """See `EcsQueue.send`."""
        handles = super().send(prepared_requests)
        self._worker.serve(prepared.request.queue for prepared in prepared_requests)
        for prepared in prepared_requests:
            heapq.heappush(self._delays, prepared.submission.delayed_until)
        if self._eager:
            self.run()
        return handles

    def stop_many(self, ids: Sequence[str], by: str | None = None) -> list[Record]:
        """See `EcsQueue.stop_many`."""
        return self._deliver_ended(super().stop_many(ids, by))

    def purge_requests(self, ids: Sequence[str], by: str | None = None) -> list[Record]:
        """See `EcsQueue.purge_requests`."""
        return self._deliver_ended(super().purge_requests(ids, by))

    def _deliver_ended(self, records: list[Record]) -> list[Record]:
        for record in records:
            if record.is_terminal:
                self._deliver(record)
        return records

    def step(self) -> None:
        """Let the worker do what is due now; the clock stands still."""
        self._worker.step()

    def advance(self, seconds: float) -> None:
        """Let time pass, and the worker work meanwhile."""
        self._pass_time(seconds, lambda: False)

    def run(self) -> None:
        """Let the worker work, and time pass, until every request has ended.

        Raises:
            NothingEnds: Some never end.
        """
        self._run_until(lambda: next(self.tasks(states=LIVE_STATES, limit=1), None) is None, None)

    def _run_until(self, is_over: Callable[[], bool], timeout: float | None) -> None:
        self._pass_time(_PATIENCE_SECONDS if timeout is None else timeout, is_over)
        while timeout is None and not is_over() and (delay := self._longest_delay()) > 0:
            self._pass_time(delay + _PATIENCE_SECONDS, is_over)
        if not is_over():
            if timeout is None:
                raise NothingEnds(self._explain())
            raise ResultTimeout(f"not ended after {timeout:g} seconds of the test's clock: {self._describe_waiting()}")

    def _pass_time(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Step the worker until it is over or the time has passed.

        No step passes the start or end of a task, the next token of a `launch_rate`, or a delay.
        """
        end, since = self.clock.now + seconds, self.clock.now
        self.step()
        while not is_over() and self.clock.now < end:
            now = self.clock.now
            while self._delays and self._delays[0] <= now:  # short steps again: its request may have a deadline soon
                since = max(since, heapq.heappop(self._delays))
            step = max(_STEP_SECONDS, _STEP_SHARE * (now - since))
            moments = (now + step, end, self._ecs.next_change(), now + self._worker.token_delay, *self._delays[:1])
            self.clock.now = min(moment for moment in moments if moment is not None)
            self.step()

    def _longest_delay(self) -> float:
        """Return the seconds until the last request that is submitted for later may be launched."""
        return max(self._delays, default=0.0) - self.clock.now

    def _explain(self) -> str:
        paused = ", ".join(self.paused_queues())
        return f"{NothingEnds.__doc__} {self._describe_waiting()}{f'; paused: {paused}' if paused else ''}"

    def _describe_waiting(self) -> str:
        return ", ".join(f"{record.id} is {record.state}" for record in self.tasks(states=LIVE_STATES, limit=5))

    def _deliver(self, record: Record) -> None:
        self.results.deliver(build_result(record))
