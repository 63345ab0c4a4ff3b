"""Random lives of a few requests under every fault there is, and the invariants that must still hold.

Workers die between any two steps, the ledger cannot be reached before or after an operation, ECS throttles, refuses,
returns server errors, does not respond, acts minutes later, and shows tasks late; messages are lost and doubled;
requests are stopped and expire. Every life is determined by its seed: run a single one with
`pytest tests/worker/test_random_faults.py -k "[17]"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from ecs_queue.errors import EcsQueueError, LedgerUnavailable
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.fake_clock import START
from tests.fake_ecs import FakeEcs, LostResult, RunTaskCall, Task
from tests.worker.harness import WorkerHarness, WorkerKilled

SEEDS = 250
REQUESTS = 5
#: Steps with faults, and how long the calm after them may take at most, in seconds.
FAULTY_STEPS, RECOVERY_SECONDS = 120, 4 * 3600
#: The longest delay until a call of a dead or paused worker acts (docs/protocol.md, "A worker that was paused").
MAX_CALL_DELAY = 550.0
#: How long ECS may not show a new task.
MAX_VISIBILITY_DELAY = 20.0

RUN_TASK_RESULTS: list[RunTaskResult | LostResult] = [
    *LostResult,
    RunTaskResult(RunTaskResultKind.THROTTLED, reason="rate exceeded"),
    RunTaskResult(RunTaskResultKind.NEVER_SENT, reason="no connection"),
    RunTaskResult(RunTaskResultKind.CAPACITY, reason="RESOURCE:CPU"),
    RunTaskResult(RunTaskResultKind.START_FAILURE, reason="AGENT"),
    RunTaskResult(RunTaskResultKind.UNUSABLE_PROFILE, reason="expired token"),
]
RELAUNCH_POLICIES = ["never_started", "interrupted", "any_failure"]


class RandomFaultsHarness:
    """A worker harness under faults."""

    def __init__(self, seed: int) -> None:
        self.workers_harness = WorkerHarness(seed=seed)
        self.rng = self.workers_harness.rng
        self.ids = [f"r{index}" for index in range(REQUESTS)]
        self.messages: list[bytes] = []
        self.delayed_until: dict[str, float] = {}
        self.ended_records: dict[str, Record] = {}
        self.workers = [self.workers_harness.worker, self.workers_harness.new_worker()]
        self.fault_rate = 0.12
        self.workers_harness.ledger.on_call = self._ledger_fault
        self.workers_harness.ecs.on_run_task = self._maybe_die
        for record_id in self.ids:
            fields = {"relaunch": self.rng.choice(RELAUNCH_POLICIES), "time_limit": self.rng.choice([None, 100.0])}
            fields["expires_in"] = self.rng.choice([None, None, 60.0, 1000.0])
            self.messages.append(self.workers_harness.put_request(record_id, **fields))

    def step(self) -> None:
        """Something happens, time passes, and the invariants are checked."""
        self.workers_harness.clock.advance(self.rng.choice([0.1, 0.5, 1.0, 3.0, 10.0, 35.0]))
        self._advance_ecs()
        happening = self.rng.choice([self._message, self._message, self._sweep, self._poll, self._poll, self._stop])
        position = self.rng.randrange(len(self.workers))
        if self.rng.random() < 2 * self.fault_rate:
            self.workers_harness.ecs.run_task_results.append(self.rng.choice(RUN_TASK_RESULTS))
        try:
            happening(position)
        except WorkerKilled:
            self.workers[position] = self.workers_harness.new_worker()
        except EcsQueueError:
            pass  # the service reports it, waits and goes on
        self.check()

    def recover(self) -> None:
        """No more faults, and time enough for everything to end."""
        self.fault_rate = 0.0
        self.workers_harness.ecs.run_task_results.clear()
        while self.workers_harness.clock() < START + RECOVERY_SECONDS and not self.is_over():
            self.workers_harness.clock.advance(self.rng.choice([1.0, 5.0, 20.0]))
            self._advance_ecs()
            for position in range(len(self.workers)):
                self._sweep(position)
                self._poll(position)
            self.check()

    def is_over(self) -> bool:
        return all(record.is_terminal for record in self.records()) and not self.workers_harness.ecs.delayed_calls

    def records(self) -> list[Record]:
        return [self.workers_harness.record(record_id) for record_id in self.ids]

    def check(self) -> None:
        """Check the rules of docs/protocol.md, "One number, one task", and that attempts and ends stay as they are."""
        tasks = list(self.workers_harness.ecs.tasks.values())
        of_a_launch = Counter(task["startedBy"] for task in tasks)
        assert all(number == 1 for number in of_a_launch.values()), of_a_launch
        alive = Counter(_request_id(task) for task in self.workers_harness.ecs.live_tasks())
        assert all(number == 1 for number in alive.values()), alive
        for record in self.records():
            assert record.attempt <= 3
            was = self.ended_records.get(record.id)
            if was is not None:
                assert (record.state, record.arn, record.exit_code) == (was.state, was.arn, was.exit_code)
            elif record.is_terminal:
                self.ended_records[record.id] = record

    def _message(self, position: int) -> None:
        """A message arrives; it may be one that arrived before, or be lost."""
        if self.messages and self.rng.random() < 0.9:
            self.workers[position].handle_message(self.rng.choice(self.messages))

    def _sweep(self, position: int) -> None:
        self.workers[position].sweep()

    def _poll(self, position: int) -> None:
        self.workers[position].poll()

    def _stop(self, position: int) -> None:
        if self.rng.random() < 0.08:
            self.workers_harness.memory_ledger.stop([self.rng.choice(self.ids)], "alice")

    def _advance_ecs(self) -> None:
        ecs, now = self.workers_harness.ecs, self.workers_harness.clock()
        for call in list(ecs.delayed_calls):
            due = self.delayed_until.setdefault(call.client_token, now + self.rng.uniform(0, MAX_CALL_DELAY))
            if due <= now:
                ecs.apply_delayed(call)
        for arn, task in ecs.tasks.items():
            task.setdefault("seenFrom", now + (self.rng.uniform(0, MAX_VISIBILITY_DELAY) if self.fault_rate else 0))
            (ecs.hidden_arns.discard if task["seenFrom"] <= now else ecs.hidden_arns.add)(arn)
            if task["lastStatus"] != "STOPPED" and self.rng.random() < 0.05:
                self._advance_task(ecs, arn, task)

    def _advance_task(self, ecs: FakeEcs, arn: str, task: Task) -> None:
        moves: list[Callable[[str], None]] = [ecs.finish, lambda arn: ecs.finish(arn, exit_code=1), ecs.interrupt]
        if not task.get("startedAt"):
            moves = [ecs.mark_running, ecs.mark_running, ecs.fail_to_start]
        self.rng.choice(moves)(arn)

    def _ledger_fault(self, operation: str, when: str) -> None:
        if self.rng.random() < self.fault_rate / 6:
            raise self.rng.choice([LedgerUnavailable(), WorkerKilled()])

    def _maybe_die(self, call: RunTaskCall) -> None:
        if self.rng.random() < self.fault_rate / 2:
            if self.rng.random() < 0.5:  # the request is on the wire
                self.workers_harness.ecs.run_task_calls.append(call)
                self.workers_harness.ecs.delayed_calls.append(call)
            raise WorkerKilled


def _request_id(task: Task) -> str:
    return str(task["startedBy"].split("/")[1])


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 25 else []) for seed in range(SEEDS)]
)
def test_every_request_ends_once_and_nothing_runs_twice(seed: int) -> None:
    harness = RandomFaultsHarness(seed)
    for _ in range(FAULTY_STEPS):
        harness.step()

    harness.recover()

    for record in harness.records():
        assert record.is_terminal, record
        if record.state is State.SUCCESS:
            assert harness.workers_harness.ecs.tasks[record.arn]["containers"][0]["exitCode"] == 0
    published = {(record.id, record.state) for record in harness.workers_harness.published_results}
    assert {state for _, state in published} <= {record.state for record in harness.records()}
    assert len({record_id for record_id, _ in published}) == len(published), "one result a request"
    assert not harness.workers_harness.ecs.live_tasks(), "nothing runs on when its request has ended"
    waiting = {record.id for record in harness.workers_harness.memory_ledger.list_undelivered("me", 100)}
    assert waiting == set(harness.ids)


@pytest.mark.slow
def test_the_simulation_reaches_every_state_and_every_ambiguity() -> None:
    """It would prove little if its faults led nowhere."""
    states: set[State] = set()
    events: set[str] = set()
    for seed in range(60):
        harness = RandomFaultsHarness(seed)
        for _ in range(FAULTY_STEPS):
            harness.step()
            events.update(name for worker in harness.workers for name, _ in worker.events)
        harness.recover()
        events.update(name for worker in harness.workers for name, _ in worker.events)
        states.update(record.state for record in harness.records())

    assert states >= {State.SUCCESS, State.FAILED, State.REMOVED, State.REVOKED, State.EXPIRED}
    assert events >= {
        "launch.ambiguous",
        "launch.refused",
        "launch.task_absent",
        "launch.task_found",
        "request.retry_scheduled",
        "task.stopping",
    }
