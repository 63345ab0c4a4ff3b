"""Random lives of a few requests under every fault there is, and the invariants that must hold all the same.

Workers die between any two steps, the ledger cannot be reached before or after an operation, ECS throttles, refuses,
answers with server errors, forgets to answer, acts minutes later, and shows tasks late; messages are lost and doubled;
requests are stopped and expire. Every life is determined by its seed: run a single one with
`pytest tests/launcher/test_simulation.py -k "[17]"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.errors import EcsQueueError, LedgerUnavailable
from tests.launcher.fake_ecs import FakeEcs, Lost, RunCall, Task
from tests.launcher.lab import START, Lab

SEEDS = 250
REQUESTS = 5
#: Steps with faults, and how long the calm after them may take at most, in seconds.
STORMY, CALM = 120, 4 * 3600
#: The longest that a call of a dead or paused worker may take until it acts (PROTOCOL.md, settle_seconds).
LATEST = 550.0
#: How long ECS may not show a new task.
UNSEEN = 20.0

ANSWERS: list[RunAnswer | Lost] = [
    *Lost,
    RunAnswer(Kind.THROTTLED, reason="rate exceeded"),
    RunAnswer(Kind.NEVER_SENT, reason="no connection"),
    RunAnswer(Kind.CAPACITY, reason="RESOURCE:CPU"),
    RunAnswer(Kind.START_FAILURE, reason="AGENT"),
    RunAnswer(Kind.PROFILE, reason="expired token"),
]
RELAUNCHES = ["never_started", "interrupted", "any_failure"]


class Killed(BaseException):
    """A worker is gone."""


class World:
    """A lab under faults."""

    def __init__(self, seed: int) -> None:
        self.lab = Lab(seed=seed)
        self.rng = self.lab.rng
        self.ids = [f"r{index}" for index in range(REQUESTS)]
        self.messages: list[bytes] = []
        self.late: dict[str, float] = {}
        self.ends: dict[str, Record] = {}
        self.workers = [self.lab.worker, self.lab.new_worker()]
        self.faults = 0.12
        self.lab.ledger.on_call = self._ledger_fault
        self.lab.ecs.on_run = self._maybe_die
        for record_id in self.ids:
            fields = {"relaunch": self.rng.choice(RELAUNCHES), "time_limit": self.rng.choice([None, 100.0])}
            fields["expires_in"] = self.rng.choice([None, None, 60.0, 1000.0])
            self.messages.append(self.lab.put(record_id, **fields))

    def step(self) -> None:
        """Something happens, time passes, and the invariants are checked."""
        self.lab.clock.advance(self.rng.choice([0.1, 0.5, 1.0, 3.0, 10.0, 35.0]))
        self._ecs_moves()
        happening = self.rng.choice([self._message, self._message, self._sweep, self._track, self._track, self._stop])
        position = self.rng.randrange(len(self.workers))
        if self.rng.random() < 2 * self.faults:
            self.lab.ecs.answers.append(self.rng.choice(ANSWERS))
        try:
            happening(position)
        except Killed:
            self.workers[position] = self.lab.new_worker()
        except EcsQueueError:
            pass  # the service tells it, rests and goes on
        self.check()

    def calm(self) -> None:
        """No more faults, and time enough for everything to end."""
        self.faults = 0.0
        self.lab.ecs.answers.clear()
        while self.lab.clock() < START + CALM and not self.is_over():
            self.lab.clock.advance(self.rng.choice([1.0, 5.0, 20.0]))
            self._ecs_moves()
            for position in range(len(self.workers)):
                self._sweep(position)
                self._track(position)
            self.check()

    def is_over(self) -> bool:
        return all(record.ended for record in self.records()) and not self.lab.ecs.late

    def records(self) -> list[Record]:
        return [self.lab.record(record_id) for record_id in self.ids]

    def check(self) -> None:
        """Invariants 1 to 3 of DESIGN.md, as far as they can be seen at any moment."""
        tasks = list(self.lab.ecs.tasks.values())
        of_a_launch = Counter(task["startedBy"] for task in tasks)
        assert all(number == 1 for number in of_a_launch.values()), of_a_launch
        alive = Counter(_id(task) for task in self.lab.ecs.alive())
        assert all(number == 1 for number in alive.values()), alive
        for record in self.records():
            assert record.attempt <= 3
            was = self.ends.get(record.id)
            if was is not None:
                assert (record.state, record.arn, record.exit_code) == (was.state, was.arn, was.exit_code)
            elif record.ended:
                self.ends[record.id] = record

    def _message(self, position: int) -> None:
        """A message arrives; it may be one that arrived before, or be lost."""
        if self.messages and self.rng.random() < 0.9:
            self.workers[position].take(self.rng.choice(self.messages))

    def _sweep(self, position: int) -> None:
        self.workers[position].sweep()

    def _track(self, position: int) -> None:
        self.workers[position].track()

    def _stop(self, position: int) -> None:
        if self.rng.random() < 0.08:
            self.lab.memory.stop([self.rng.choice(self.ids)], "alice")

    def _ecs_moves(self) -> None:
        ecs, now = self.lab.ecs, self.lab.clock()
        for call in list(ecs.late):
            due = self.late.setdefault(call.token, now + self.rng.uniform(0, LATEST))
            if due <= now:
                ecs.act_late(call)
        for arn, task in ecs.tasks.items():
            task.setdefault("seenFrom", now + (self.rng.uniform(0, UNSEEN) if self.faults else 0))
            (ecs.hidden.discard if task["seenFrom"] <= now else ecs.hidden.add)(arn)
            if task["lastStatus"] != "STOPPED" and self.rng.random() < 0.05:
                self._task_moves(ecs, arn, task)

    def _task_moves(self, ecs: FakeEcs, arn: str, task: Task) -> None:
        moves: list[Callable[[str], None]] = [ecs.end, lambda arn: ecs.end(arn, exit_code=1), ecs.interrupt]
        if not task.get("startedAt"):
            moves = [ecs.run, ecs.run, ecs.fail_to_start]
        self.rng.choice(moves)(arn)

    def _ledger_fault(self, operation: str, when: str) -> None:
        if self.rng.random() < self.faults / 6:
            raise self.rng.choice([LedgerUnavailable(), Killed()])

    def _maybe_die(self, call: RunCall) -> None:
        if self.rng.random() < self.faults / 2:
            if self.rng.random() < 0.5:  # the request is on the wire
                self.lab.ecs.calls.append(call)
                self.lab.ecs.late.append(call)
            raise Killed


def _id(task: Task) -> str:
    return str(task["startedBy"].split("/")[1])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_request_ends_once_and_nothing_runs_twice(seed: int) -> None:
    world = World(seed)
    for _ in range(STORMY):
        world.step()

    world.calm()

    for record in world.records():
        assert record.ended, record
        if record.state is State.SUCCESS:
            assert world.lab.ecs.tasks[record.arn]["containers"][0]["exitCode"] == 0
    told = {(record.id, record.state) for record in world.lab.published}
    assert {state for _, state in told} <= {record.state for record in world.records()}
    assert len({record_id for record_id, _ in told}) == len(told), "one result a request, however often it is told"
    assert not world.lab.ecs.alive(), "nothing runs on when its request has ended"
    waiting = {record.id for record in world.lab.memory.undelivered("me", 100)}
    assert waiting == set(world.ids)


def test_the_simulation_reaches_every_state_and_every_doubt() -> None:
    """It would prove little if its faults led nowhere."""
    states: set[State] = set()
    events: set[str] = set()
    for seed in range(60):
        world = World(seed)
        for _ in range(STORMY):
            world.step()
            events.update(name for worker in world.workers for name, _ in worker.events)
        world.calm()
        events.update(name for worker in world.workers for name, _ in worker.events)
        states.update(record.state for record in world.records())

    assert states >= {State.SUCCESS, State.FAILED, State.REMOVED, State.REVOKED, State.EXPIRED}
    assert events >= {"launch.unsure", "launch.refused", "launch.looked", "launch.found", "task.retry", "task.stop"}
