"""Random operations, the same on one or two ledgers, and checks of what must be true after each of them.

Identifiers, claims and numbers are mostly those of the present record, so that records reach late states; the others
are stale or wrong. Times are eighths of a second: their sums are exact in both implementations.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ecs_queue.ledger import Ledger
from ecs_queue.protocol.operations import (
    ONLY_QUEUED,
    EndRuling,
    OperationResult,
    RefusalKind,
    ResultCode,
    RunnerTask,
    SettleRequest,
    TaskUpdate,
)
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.protocol.record_moves import is_start_overdue
from ecs_queue.protocol.runs import Run, RunEnd, RunPhase
from ecs_queue.protocol.states import TERMINAL_STATES, TRANSITIONS, State
from tests.conformance.ledger.harness import (
    ABSENCE_PROVABLE_AFTER,
    TRACEPARENT,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
    task_update,
)
from tests.conformance.ledger.runner_harness import RunnerHarness, make_runner, mark_stop

IDS = ("a", "b", "c", "d", "e")
QUEUES = ("q1", "q2")
KEYS = ("k", "a k", "")
OWNERS = ("", "ann", "bob")
TIME_STEPS = (0.0, 0.0, 0.0, 0.125, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 300.0, 630.0, 1800.0, 3600.0)
WAITS = (0.0, 1.0, 4.0, 30.0)

Transition = tuple[State | None, State | None]
Records = dict[str, Record | None]
Operation = Callable[[Ledger], Any]


class RandomOperations:
    """Runs operations on `harnesses`: the ledger, and one to compare it with, if any."""

    def __init__(self, harnesses: Sequence[LedgerHarness], seed: int) -> None:
        self._harnesses = harnesses
        self._rng = random.Random(seed)
        self._variants = random.Random(f"variants {seed}")  # drawn apart, so that seeds stay the same
        self._serial = 0
        self._history: list[str] = []
        self._records = self._read_records()
        self.transitions: set[tuple[str, Transition]] = set()
        self.results: set[tuple[str, ResultCode]] = set()

    def run(self, steps: int) -> None:
        """Run `steps` operations.

        Raises:
            AssertionError: The ledgers differ, or a rule is broken. It names the last operations.
        """
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """Run one operation, compare its results and check the records."""
        before = self._records
        name, run = self._choose(before)
        history = f"after {self._history[-12:]}"
        results = [run(harness.ledger) for harness in self._harnesses]
        for other_result in results[1:]:
            assert _comparable(other_result) == _comparable(results[0]), (results, history)
        self.results |= {(name, code) for code in _result_codes(results[0])}
        after = self._records = self._read_records()
        for other in self._harnesses[1:]:
            found = dict(zip(IDS, other.ledger.get_with_payload(IDS), strict=True))
            assert _comparable(found) == _comparable(after), history
            assert other.ledger.count_by_state() == self._harnesses[0].ledger.count_by_state(), history
            assert other.ledger.count_starting(QUEUES) == self._harnesses[0].ledger.count_starting(QUEUES), history
            for queue, key in itertools.product(QUEUES, KEYS):
                found_counts = [each.ledger.count_of_key(queue, key) for each in (other, self._harnesses[0])]
                assert found_counts[0] == found_counts[1], history
            assert _comparable(other.ledger.list_runs()) == _comparable(self._harnesses[0].ledger.list_runs()), history
        for record_id in IDS:
            if before[record_id] != after[record_id]:  # what holds of a record that stays as it is was checked before
                self._check_transition(name, before[record_id], after[record_id], history)
                check_record(after[record_id], history)
        self._check_runs(after, history)

    def _check_runs(self, records: Records, history: str) -> None:
        """Record and run agree: one assignment a runner, one runner a launch."""
        for run in self._harnesses[0].ledger.list_runs():
            if run.phase is RunPhase.IDLE:
                assert not run.id, history
                assert not run.cancel, history
                continue
            record = records[run.id]
            assert record is not None, history
            assert record.state in (State.LAUNCHING, State.LAUNCHED), history
            assert (record.nonce, record.launch, record.run) == (run.nonce, run.launch, run.name), history

    def _read_records(self) -> Records:
        return dict(zip(IDS, self._harnesses[0].ledger.get_with_payload(IDS), strict=True))

    def _check_transition(self, name: str, old: Record | None, new: Record | None, history: str) -> None:
        if new is None:
            assert old is None or (name == "advance" and old.is_terminal), history
            return
        move = (old.state if old else None, new.state)
        if move[0] is not move[1]:
            self.transitions.add((name, move))
            assert move in _allowed_transitions(name), (name, move, history)
        if old is None:
            return
        assert not (old.is_terminal and move[0] is not move[1]), history
        assert new.launch == old.launch or (new.launch == old.launch + 1 and new.state is State.QUEUED), history
        assert old.attempt <= new.attempt <= old.attempt + 1, history
        if new.launch == old.launch and old.args and not new.is_terminal and new.run == old.run:
            assert (new.args, new.target) == (old.args, old.target), history

    def _choose(self, records: Records) -> tuple[str, Operation]:
        rng = self._rng
        record = records[rng.choice(IDS)] or Record(id=rng.choice(IDS))
        names, weights = zip(*_WEIGHTS.items(), strict=True)
        # Operations that fit the state are chosen more often: otherwise hardly any record would be launched.
        name = rng.choice(_OPERATIONS_BY_STATE[record.state]) if rng.random() < 0.6 else rng.choices(names, weights)[0]
        (its_run,) = self._harnesses[0].ledger.read_runs([record.run])
        if its_run is not None and record.state is State.LAUNCHING and its_run.phase is not RunPhase.ASSIGNED:
            # Whatever looks at the record makes it LAUNCHED: else hardly any run would end before.
            others = ("runner_speaks", "runner_speaks", "stop", name)
            name = "settle" if its_run.phase is RunPhase.ENDED else rng.choice(others)
        name = self._variants.choice((name, *self._rare_operations(record)))
        if not record.digest and rng.random() < 0.7:
            name = rng.choice(("put", "put_and_claim"))
            name = "stop" if self._variants.random() < 0.05 else name
        run: Operation = getattr(self, f"_{name}")(record)
        self._history.append(f"{name}({record.id})")
        return name, run

    def _rare_operations(self, record: Record) -> list[str]:
        """Operations that make transitions which hardly ever come by chance, if the record is ready for one."""
        if record.state is State.LAUNCHING:
            is_ready = record.stop_requested_by or self._now() >= record.last_claim_at + ABSENCE_PROVABLE_AFTER
            return ["reclaim", "task_absent"] if is_ready else []
        is_late = record.state is State.LAUNCHED and bool(record.run) and is_start_overdue(record, self._now())
        return ["settle"] if is_late else []

    def _now(self) -> float:
        return self._harnesses[0].clock.now

    def _fresh(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}-{self._serial}"

    def _usually(self, right: Any, *wrong: Any) -> Any:
        return right if self._rng.random() < 0.85 else self._rng.choice(wrong)

    def _submission(self, record: Record) -> Any:
        rng, now = self._rng, self._now()
        return make_submission(
            record.id,
            nonce=self._usually(record.nonce or self._fresh("nonce"), self._fresh("nonce")),
            digest=self._usually(record.digest or "d1", "d1", "d2"),
            queue=record.queue or rng.choice(QUEUES),
            owner=record.owner or rng.choice(OWNERS),
            accept_until=now + rng.choice((0.0, 600.0, 86400.0, 86400.0, 86400.0)),
            expires_at=now + expires_in if (expires_in := rng.choice((0.0, 60.0, 2400.0, 7200.0))) else 0.0,
            time_limit=rng.choice((0.0, 90.5)),
            traceparent=rng.choice(("", TRACEPARENT)),
            relaunch=rng.choice(("never_started", "interrupted", "any_failure", "any_failure")),
            concurrency_key=record.concurrency_key or self._variants.choice((*KEYS, "", "")),
            priority=self._variants.choice((0, 0, 5, 9)),
        )

    def _claim_request(self) -> Any:
        args, limit = self._usually(self._fresh("args"), ""), self._rng.choice((0, 0, 0, 1))
        known: dict[str, Any] = {
            "container_name": f"container-{self._serial}",
            "max_attempts": self._variants.choice((1, 3, 3)),
            "spec_version": 1,
        }
        stored = known if self._serial % 3 else {}
        return claim_request(
            self._fresh("claim"),
            args=args,
            target=self._fresh("target"),
            queue_limit=limit,
            start_timeout=self._rng.choice((0.0, 0.0, 5.0)),
            retry_rules=self._rng.choice(("", "", '[{"action":"retry"}]')),
            max_starting=self._rng.choice((0, 0, 1, 2)),
            variant=self._variants.choice((0, 0, 1, 2)),
            variant_reason=self._variants.choice(("", "refused on variant 1: none")),
            key_limit=self._variants.choice((0, 0, 0, 1, 2)),
            **stored,
        )

    def _warm_claim_request(self) -> Any:
        bid, pool = self._claim_request(), self._rng.choice(("p1",) * 5 + ("p2",))
        changes = {"target": f"target-{pool}", "pool": pool, "payload": self._fresh("payload")}
        return msgspec.structs.replace(bid, **changes, may_call=self._rng.random() < 0.6)

    def _claim_of(self, record: Record) -> str:
        return str(self._usually(record.claim, "", "claim-1", self._fresh("claim")))

    def _advance(self, record: Record) -> Operation:
        step = self._rng.choice(TIME_STEPS)
        for harness in self._harnesses:
            harness.advance(step)
        return lambda ledger: ledger.now()

    def _put(self, record: Record) -> Operation:
        new = self._submission(record)
        return lambda ledger: ledger.put([new])

    def _put_and_claim(self, record: Record) -> Operation:
        new, bid = self._submission(record), self._rng.choice((self._claim_request(), self._warm_claim_request()))
        return lambda ledger: ledger.put_and_claim(new, bid)

    def _claim(self, record: Record) -> Operation:
        bid = self._usually(self._rng.choice((self._claim_request(), self._warm_claim_request())), None)
        return lambda ledger: ledger.claim(record.id, bid)

    def _reclaim(self, record: Record) -> Operation:
        bid = self._claim_request()
        return lambda ledger: ledger.reclaim(record.id, bid)

    def _launched(self, record: Record) -> Operation:
        nonce = self._usually(record.nonce, "wrong")
        launch = self._usually(record.launch, record.launch - 1, record.launch + 1)
        arn, wait = self._usually(f"arn:{record.id}:{launch}", f"arn:other:{record.id}"), self._rng.choice(WAITS)
        return lambda ledger: ledger.launched(record.id, nonce, launch, arn, wait)

    def _call_ambiguous(self, record: Record) -> Operation:
        claim, wait, call_completed = self._claim_of(record), self._rng.choice(WAITS), self._rng.random() < 0.5
        return lambda ledger: ledger.call_ambiguous(record.id, claim, wait, "ambiguous", call_completed)

    def _no_effect(self, record: Record) -> Operation:
        claim, wait = self._claim_of(record), self._rng.choice(WAITS)
        return lambda ledger: ledger.no_effect(record.id, claim, wait, "throttled")

    def _refused(self, record: Record) -> Operation:
        claim = self._claim_of(record)
        no = make_refusal(self._rng.choice(list(RefusalKind)), self._rng.choice(WAITS), self._rng.choice((1, 3)))
        return lambda ledger: ledger.refused(record.id, claim, *no)

    def _task_absent(self, record: Record) -> Operation:
        claim, wait = self._claim_of(record), self._rng.choice(WAITS)
        return lambda ledger: ledger.task_absent(record.id, claim, wait)

    def _update_task(self, record: Record) -> Operation:
        update = self._task_update(record)
        return lambda ledger: ledger.update_tasks([update])

    def _task_update(self, record: Record) -> TaskUpdate:
        rng = self._rng
        end = rng.choice((None, None, None, *sorted(TERMINAL_STATES)))
        return task_update(
            record,
            version=self._usually(record.version + 1, record.version, 0, record.version + 5),
            launch=self._usually(record.launch, record.launch + 1),
            arn=self._usually(record.arn, "arn:other"),
            wait=rng.choice(WAITS),
            started_at=rng.choice((0.0, self._now() - 1)),
            end_state=end,
            may_relaunch=bool(end) and rng.random() < 0.5,
            counts_attempt=rng.random() < 0.7,
            stopped_by_user=bool(end) and rng.random() < 0.4,
            max_attempts=rng.choice((1, 3)),
            finished_at=rng.choice((0.0, self._now() - 0.5)),
            exit_code=rng.choice((None, 0, 137)) if end else None,
            stop_code=rng.choice(("", "UserInitiated")),
            reason=rng.choice(("", "exit 137")),
            last_status=rng.choice(("", "PENDING", "RUNNING", "unknown", "DEPROVISIONING", "STOPPED")),
        )

    def _update_runner_task(self, record: Record) -> Operation:
        update: Any = self._task_update(record)
        return lambda ledger: ledger.update_runner_tasks([update])

    def _settle(self, record: Record) -> Operation:
        (run,) = self._harnesses[0].ledger.read_runs([record.run])
        end = self._usually(run and run.end, None, RunEnd(turn=1, exit_code=7))
        request = SettleRequest(
            id=record.id,
            end=end,
            is_verified=self._rng.random() < 0.9,
            wait=self._rng.choice(WAITS),
            ruling=self._rng.choice(list(EndRuling)),
        )
        return lambda ledger: ledger.settle([request])

    def _runner_speaks(self, record: Record) -> Operation:
        rng = self._rng
        runs = self._harnesses[0].ledger.list_runs()
        run = rng.choice(runs) if runs and rng.random() < 0.3 else None
        name = run.name if run is not None else record.run or "job.nonce.1"
        (run,) = self._harnesses[0].ledger.read_runs([name])
        boot = (run and run.boot) or "boot"
        boot = boot if rng.random() < 0.95 else "another boot"
        turn = 1 if run is None else self._usually(run.turn, run.turn - 1)
        is_cancelled = rng.random() < (0.8 if run and run.cancel else 0.1)
        end = RunEnd(turn=turn, exit_code=rng.choice((0, 3)), cancelled=is_cancelled)
        said = rng.choice(("next", "next", "end", "end", "beat", "leave"))

        def speak(ledger: Ledger) -> Any:
            harness = next(each for each in self._harnesses if each.ledger is ledger)
            runner = RunnerHarness(harness, make_runner(harness, name).operations, name, boot, f"arn:{name}:{boot}")
            if said == "beat":
                return runner.beat(turn)
            return runner.leave() if said == "leave" else runner.next(end if said == "end" else None)

        return speak

    def _use_pools(self, record: Record) -> Operation:
        task = RunnerTask(record.run or "none", self._usually(record.arn, "arn:other"))
        uses: list[Operation] = [
            lambda ledger: (ledger.pop_changed_runs(0.0, 3), ledger.may_stop([task])),
            lambda ledger: _close_silent(ledger),
            lambda ledger: ledger.forget_runner(record.run or "none"),
            lambda ledger: ledger.drain_runs([run.name for run in ledger.list_runs() if run.pool == "p2"]),
        ]
        return self._rng.choice(uses)

    def _put_back(self, record: Record) -> Operation:
        return lambda ledger: ledger.put_back([record.id])

    def _reschedule_poll(self, record: Record) -> Operation:
        waits = {record.id: self._rng.choice(WAITS)}
        return lambda ledger: ledger.reschedule_poll(waits)

    def _stop(self, record: Record) -> Operation:
        by = self._rng.choice(("ann", STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT))
        launch = self._rng.choice((0, ONLY_QUEUED)) if by == "ann" else record.launch
        return lambda ledger: ledger.stop([record.id], by, launch)

    def _mark_stop(self, record: Record) -> Operation:
        is_in_flight = record.state in (State.LAUNCHING, State.LAUNCHED) and not record.stop_requested_by

        def mark(ledger: Ledger) -> None:
            if is_in_flight:
                mark_stop(next(each for each in self._harnesses if each.ledger is ledger), record.id)

        return mark

    def _adopt(self, record: Record) -> Operation:
        owner = self._rng.choice(OWNERS)
        return lambda ledger: ledger.adopt([record.id], owner)

    def _confirm(self, record: Record) -> Operation:
        pair, owner = (record.id, self._usually(record.nonce, "wrong")), self._usually(record.owner, *OWNERS)
        return lambda ledger: ledger.confirm([pair], owner)

    def _lease(self, record: Record) -> Operation:
        limit, queue = self._rng.choice((1, 10)), self._rng.choice(QUEUES)
        pops: list[Operation] = [
            lambda ledger: ledger.lease_due(limit),
            lambda ledger: ledger.lease_due_retries(queue, limit),
            lambda ledger: ledger.lease_unclaimed(queue, limit),
            lambda ledger: ledger.lease_expired(limit),
        ]
        return self._rng.choice(pops)

    def _read(self, record: Record) -> Operation:
        owner, arn = self._rng.choice(OWNERS), record.arn or "arn:none"
        return lambda ledger: (ledger.list_undelivered(owner, 10), ledger.find_id_by_arn(arn))

    def _pause_queues(self, record: Record) -> Operation:
        queue = self._rng.choice(QUEUES)

        def pause(ledger: Ledger) -> Any:
            ledger.pause_queues([queue])
            return ledger.list_paused_queues()

        return pause

    def _resume_queues(self, record: Record) -> Operation:
        def resume(ledger: Ledger) -> Any:
            ledger.resume_queues(QUEUES)
            return ledger.list_paused_queues()

        return resume

    def _prune(self, record: Record) -> Operation:
        return lambda ledger: ledger.prune(10)


_WEIGHTS = {
    "advance": 14,
    "put": 4,
    "put_and_claim": 4,
    "claim": 6,
    "reclaim": 8,
    "launched": 6,
    "call_ambiguous": 3,
    "no_effect": 4,
    "refused": 4,
    "task_absent": 4,
    "update_task": 8,
    "update_runner_task": 6,
    "settle": 8,
    "runner_speaks": 12,
    "use_pools": 2,
    "put_back": 1,
    "reschedule_poll": 2,
    "stop": 4,
    "mark_stop": 1,
    "adopt": 2,
    "confirm": 3,
    "lease": 8,
    "read": 2,
    "prune": 2,
    "pause_queues": 1,
    "resume_queues": 3,
}
_OPERATIONS_BY_STATE = {
    State.QUEUED: ("claim", "claim", "advance", "lease"),
    State.LAUNCHING: (
        "reclaim",
        "launched",
        "no_effect",
        "refused",
        "task_absent",
        "call_ambiguous",
        "advance",
        "advance",
        "task_absent",
        "stop",
        *("runner_speaks", "runner_speaks", "runner_speaks", "settle"),
    ),
    State.LAUNCHED: (
        *("update_task", "update_task", "update_runner_task", "lease", "advance"),
        *("runner_speaks", "runner_speaks", "runner_speaks", "settle", "settle", "stop"),
    ),
} | dict.fromkeys(TERMINAL_STATES, ("confirm", "advance", "advance", "put"))


def _close_silent(ledger: Ledger) -> list[Run]:
    """Look at all runners, two a page."""
    found: list[Run] = []
    offset = 0
    while offset >= 0:
        runs, offset = ledger.close_silent(offset, 2)
        found += runs
    return sorted(found, key=lambda run: run.name)


def _allowed_transitions(name: str) -> frozenset[Any]:
    """The transitions of an operation. Those of put_and_claim are put's, claim's, and both in a row."""
    if name == "put_and_claim":
        composed = {(None, end) for start, end in TRANSITIONS["claim"] if (None, start) in TRANSITIONS["put"]}
        return TRANSITIONS["put"] | TRANSITIONS["claim"] | composed
    return TRANSITIONS.get(name, frozenset())


def _result_codes(value: Any) -> set[ResultCode]:
    """The codes of an operation's result or results."""
    if isinstance(value, list | tuple):
        return {code for item in value for code in _result_codes(item)}
    return {value.code} if isinstance(value, OperationResult) else set()


def _comparable(value: Any) -> Any:
    """Convert records to dictionaries and round times to the millisecond."""
    if isinstance(value, Record | OperationResult | Run):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def check_record(record: Record | None, history: str = "") -> None:
    """Check what is true of a record at any time."""
    if record is None:
        return
    assert not (record.state is State.QUEUED and (record.stop_requested_by or record.first_called_at)), history
    assert bool(record.claim) <= (record.state is State.LAUNCHING), history
    assert (record.ambiguous or record.retired) <= (record.state is State.LAUNCHING), history
    assert bool(record.arn) >= (record.state is State.LAUNCHED), history
    assert not (record.state in (State.QUEUED, State.LAUNCHING) and record.arn), history
    assert not (record.state is State.QUEUED and record.run), history
    assert bool(record.request) != record.is_terminal, history
    assert not (record.is_terminal and (record.args or record.not_before or record.lease_until)), history
    assert bool(record.finished_at) == record.is_terminal, history
    assert record.undelivered <= (record.is_terminal and bool(record.owner)), history
    assert 0 <= record.attempts <= record.attempt, history
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record, history
