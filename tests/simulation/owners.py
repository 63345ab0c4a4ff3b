"""Clients as simulated processes, over the real `EcsQueue`: they submit, stop, wait, die, return or leave an heir."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ecs_queue.broker.base import Broker
from ecs_queue.client import EcsQueue, Handle, Submitted
from ecs_queue.config import Config
from ecs_queue.core.envelope import TaskResult
from ecs_queue.errors import LedgerUnavailable, PermanentError, RequestTooLate, UnknownTask
from ecs_queue.ledger.base import Ledger
from tests.simulation.process import Process, Stage
from tests.simulation.scheduler import SimEvent

Outcome = TypeVar("Outcome")


@dataclass(slots=True)
class Wish:
    """One request that an owner wants to be run. `line`: a task line; times are simulated."""

    line: dict[str, Any]
    submit_at: float
    stop_at: float = 0.0
    accepted: bool = False
    nonce: str = ""
    delivered: bool = False

    @property
    def id(self) -> str:
        """The request's id."""
        return str(self.line["id"])


@dataclass(slots=True)
class Owner:
    """What outlives a client's processes: what it wants, and what it has been given."""

    name: str
    wishes: list[Wish]
    heir_of: str = ""
    clock_is_off_by: float = 0.0
    abandoned: bool = False
    done: bool = False
    results: list[TaskResult] = field(default_factory=list)

    @property
    def stops_left(self) -> bool:
        """Whether it still wants something to be stopped."""
        return any(wish.stop_at for wish in self.wishes)


class SimClient(Process):
    """One incarnation of an owner's process. `found(text)`: something that must not happen."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        died: Callable[[Process], None],
        owner: Owner,
        config: Config,
        connect: Callable[[Process], tuple[Ledger, Broker]],
        found: Callable[[str], None],
    ) -> None:
        super().__init__(stage, name, died)
        self.owner = owner
        self._found = found
        self._ledger, broker = connect(self)
        self._queue = EcsQueue(config, broker, self._ledger, owner=owner.name, clock=self._clock)
        # Without a broker it rests on this event.
        self._queue._waiting._closed = SimEvent(self.stage.scheduler)
        self._drafts: dict[str, Submitted] = {}
        self._seen: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Submit, and wait for results; stop in between."""
        self.stage.scheduler.spawn(self, "main", self._main)
        for wish in self.owner.wishes:
            if wish.stop_at:
                self.stage.scheduler.spawn(self, "stop", lambda wish=wish: self._stop(wish))  # type: ignore[misc]

    def _clock(self) -> float:
        return self.stage.now + self.owner.clock_is_off_by

    def _main(self) -> None:
        if self.owner.heir_of:
            self._again(self._adopt)
        handles = []
        for wish in sorted(self.owner.wishes, key=lambda wish: wish.submit_at):
            if not wish.delivered:
                self.stage.scheduler.sleep(max(0.0, wish.submit_at - self.stage.now))
                handle = self._submit(wish)
                if handle is not None:
                    handles.append(handle)
        self._collect(handles)
        self.owner.done = True
        self.stage.tell(f"{self.owner.name} has all its results")

    def _submit(self, wish: Wish) -> Handle | None:
        if self.owner.heir_of:
            return self._handle(wish)
        try:
            handle = self._again(partial(self._send, wish))
        except PermanentError as error:
            self._found(f"{wish.id} could not be submitted: {error}")
            return None
        wish.accepted, wish.nonce = True, handle.nonce
        self.stage.tell(f"{wish.id} is accepted, nonce {handle.nonce}")
        return handle

    def _send(self, wish: Wish) -> Handle:
        """Until it is known to be accepted, the same envelope; a new one when it has become too old."""
        draft = self._drafts.get(wish.id) or self._queue.prepare(wish.line)
        self._drafts[wish.id] = draft
        try:
            return self._queue.send([draft])[0]
        except RequestTooLate:
            del self._drafts[wish.id]
            if self.stage.now < draft.request.accept_until:
                self._found(f"{wish.id} is called too late before its time")
            raise LedgerUnavailable from None  # again

    def _handle(self, wish: Wish) -> Handle | None:
        try:
            return self._again(lambda: self._queue.handle(wish.id))
        except UnknownTask:  # its owner died before the ledger had it for good
            wish.accepted = False
            return None

    def _adopt(self) -> None:
        self._ledger.adopt([wish.id for wish in self.owner.wishes], self.owner.name)

    def _collect(self, handles: list[Handle]) -> None:
        try:
            for result in self._queue.as_completed(handles):
                self._take(result)
        except UnknownTask as error:
            self._found(f"{self.owner.name}: {error}")

    def _take(self, result: TaskResult) -> None:
        self.stage.tell(f"result of {result.id}: {result.state}, {result.attempts} attempts, {result.reason}")
        key = result.id, result.nonce
        if key in self._seen:
            self._found(f"{self.name} was given the result of {result.id} twice")
        self._seen.add(key)
        self.owner.results.append(result)
        for wish in self.owner.wishes:
            wish.delivered = wish.delivered or wish.id == result.id

    def _stop(self, wish: Wish) -> None:
        self.stage.scheduler.sleep(max(0.0, wish.stop_at - self.stage.now))
        self._again(lambda: self._queue.stop(wish.id, by="somebody"))
        wish.stop_at = 0.0

    def _again(self, call: Callable[[], Outcome]) -> Outcome:
        while True:
            try:
                return call()
            except LedgerUnavailable:
                self.stage.scheduler.sleep(self.stage.rng.uniform(0.5, 3.0))
