"""Clients as simulated processes, over the real `EcsQueue`: they submit, stop, wait, die and restart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ecs_queue.broker.base import Broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.client.producer import PreparedRequest
from ecs_queue.config import Config
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, PermanentError, RequestTooLate, UnknownTask
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.result import TaskResult
from tests.simulation.process import SimProcess, SimulationContext
from tests.simulation.scheduler import SimEvent

T = TypeVar("T")


@dataclass(slots=True)
class SimRequest:
    """A request that an owner submits. `line` is a task line; times are simulated."""

    line: dict[str, Any]
    submit_at: float
    stop_at: float = 0.0
    is_accepted: bool = False
    nonce: str = ""
    is_delivered: bool = False

    @property
    def id(self) -> str:
        """The request's id."""
        return str(self.line["id"])


@dataclass(slots=True)
class SimOwner:
    """What outlives a client's processes: its requests and the results it got."""

    name: str
    requests: list[SimRequest]
    successor_of: str = ""
    clock_offset: float = 0.0
    abandoned: bool = False
    done: bool = False
    results: list[TaskResult] = field(default_factory=list)

    @property
    def has_pending_stops(self) -> bool:
        """Whether it still has to stop a request."""
        return any(request.stop_at for request in self.requests)


class SimClientProcess(SimProcess):
    """One run of an owner's process. `report_violation(text)` is called for what must not happen."""

    def __init__(
        self,
        context: SimulationContext,
        name: str,
        on_death: Callable[[SimProcess], None],
        owner: SimOwner,
        config: Config,
        connect: Callable[[SimProcess], tuple[Ledger, Broker]],
        report_violation: Callable[[str], None],
    ) -> None:
        super().__init__(context, name, on_death)
        self.owner = owner
        self._report_violation = report_violation
        self._ledger, self._broker = connect(self)
        self._queue = EcsQueue(
            config,
            self._broker,
            self._ledger,
            owner=owner.name,
            clock=self._clock,
            monotonic=context.scheduler.clock,
        )
        self._simulate_results_thread()
        self._prepared: dict[str, PreparedRequest] = {}
        self._received: set[tuple[str, str]] = set()

    def _simulate_results_thread(self) -> None:
        """Let the thread that reads the results, and those that wait for it, be threads of the simulation."""
        scheduler, results = self.context.scheduler, self._queue.results
        results._new_event = lambda: SimEvent(scheduler)
        results._closed, results._wake = SimEvent(scheduler), SimEvent(scheduler)
        results._ended, results._confirmations._ended = SimEvent(scheduler), SimEvent(scheduler)
        results._start = lambda run: scheduler.spawn(self, "results", run)  # type: ignore[assignment]
        results.prepare_wait = lambda timeout, is_over: timeout  # type: ignore[method-assign] # one thread of Python

    def start(self) -> None:
        """Start to submit, to wait for results, and to stop requests in between."""
        self.context.scheduler.spawn(self, "main", self._main)
        for request in self.owner.requests:
            if request.stop_at:
                self.context.scheduler.spawn(self, "stop", lambda request=request: self._stop(request))  # type: ignore[misc]

    def _clock(self) -> float:
        return self.context.now + self.owner.clock_offset

    def _main(self) -> None:
        if self.owner.successor_of:
            self._retry(self._adopt)
        handles = []
        for request in sorted(self.owner.requests, key=lambda request: request.submit_at):
            if not request.is_delivered:
                self.context.scheduler.sleep(max(0.0, request.submit_at - self.context.now))
                handle = self._submit(request)
                if handle is not None:
                    handles.append(handle)
        self._collect(handles)
        self.owner.done = True
        self.context.trace(f"{self.owner.name} has all its results")

    def _submit(self, request: SimRequest) -> Handle | None:
        if self.owner.successor_of:
            return self._handle(request)
        try:
            handle = self._retry(partial(self._send, request))
        except PermanentError as error:
            self._report_violation(f"{request.id} could not be submitted: {error}")
            return None
        request.is_accepted, request.nonce = True, handle.nonce
        self.context.trace(f"{request.id} is accepted, nonce {handle.nonce}")
        return handle

    def _send(self, request: SimRequest) -> Handle:
        """Send the same envelope until it is accepted; prepare a new one when it has become too old."""
        prepared = self._prepared.get(request.id) or self._queue.prepare(request.line)
        self._prepared[request.id] = prepared
        try:
            handle = self._queue.send([prepared])[0]
            if prepared.submission.delayed_until:  # a producer of another kind publishes at once
                with suppress(BrokerUnavailable):
                    self._broker.publish_requests([prepared.to_message()])
            return handle
        except RequestTooLate:
            del self._prepared[request.id]
            if self.context.now < prepared.request.accept_until:
                self._report_violation(f"{request.id} is refused as too late before its time")
            raise LedgerUnavailable from None  # the caller retries

    def _handle(self, request: SimRequest) -> Handle | None:
        try:
            return self._retry(lambda: self._queue.handle(request.id))
        except UnknownTask:  # its owner died before the ledger had it for good
            request.is_accepted = False
            return None

    def _adopt(self) -> None:
        self._ledger.adopt([request.id for request in self.owner.requests], self.owner.name)

    def _collect(self, handles: list[Handle]) -> None:
        try:
            for result in self._queue.as_completed(handles):
                self._receive(result)
        except UnknownTask as error:
            self._report_violation(f"{self.owner.name}: {error}")

    def _receive(self, result: TaskResult) -> None:
        self.context.trace(f"result of {result.id}: {result.state}, {result.attempts} attempts, {result.reason}")
        key = result.id, result.nonce
        if key in self._received:
            self._report_violation(f"{self.name} was given the result of {result.id} twice")
        self._received.add(key)
        self.owner.results.append(result)
        for request in self.owner.requests:
            request.is_delivered = request.is_delivered or request.id == result.id

    def _stop(self, request: SimRequest) -> None:
        self.context.scheduler.sleep(max(0.0, request.stop_at - self.context.now))
        # At once: while the ledger may still forget the stop that it did not confirm.
        self._retry(lambda: self._queue.stop(request.id, by="ann"), wait=0.02)
        request.stop_at = 0.0

    def _retry(self, call: Callable[[], T], wait: float = 0.5) -> T:
        while True:
            try:
                return call()
            except LedgerUnavailable:
                self.context.scheduler.sleep(wait * self.context.rng.uniform(1.0, 6.0))
