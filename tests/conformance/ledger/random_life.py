"""Random operations, the same on one or two ledgers, and what must be true after each of them.

Identifiers, claims and numbers are taken from the record as it stands most of the time, so that lives go deep, and
are stale or wrong for the rest. Times are eighths of a second: their sums are exact in both forms.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ecs_queue.core.protocol import Answer, RefusalKind
from ecs_queue.core.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.core.states import TERMINAL, TRANSITIONS, State
from ecs_queue.ledger import Ledger
from tests.conformance.ledger.lab import Lab, offer, refusal, seen, submission

IDS = ("a", "b", "c", "d", "e")
QUEUES = ("q1", "q2")
OWNERS = ("", "ann", "bob")
STEPS = (0.0, 0.0, 0.0, 0.125, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 300.0, 630.0, 1800.0, 3600.0)
WAITS = (0.0, 1.0, 4.0, 30.0)

Move = tuple[State | None, State | None]
Records = dict[str, Record | None]
Run = Callable[[Ledger], Any]


class RandomLife:
    """`labs`: the ledger, and the one to compare it with, if any."""

    def __init__(self, labs: Sequence[Lab], seed: int) -> None:
        self._labs = labs
        self._rng = random.Random(seed)
        self._serial = 0
        self._done: list[str] = []
        self.moves: set[tuple[str, Move]] = set()

    def run(self, steps: int) -> None:
        """So many operations; AssertionError with the last of them when the ledgers or the rules disagree."""
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """One operation, compared and checked."""
        before = self.records()
        name, run = self._choose(before)
        told = f"after {self._done[-12:]}"
        answers = [_plain(run(lab.ledger)) for lab in self._labs]
        assert all(answer == answers[0] for answer in answers), (answers, told)
        after = self.records()
        for other in self._labs[1:]:
            found = dict(zip(IDS, other.ledger.get(IDS), strict=True))
            assert _plain(found) == _plain(after), told
            assert other.ledger.counts() == self._labs[0].ledger.counts(), told
        for record_id in IDS:
            self._check_move(name, before[record_id], after[record_id], told)
            check_record(after[record_id], told)

    def records(self) -> Records:
        """As they stand."""
        return dict(zip(IDS, self._labs[0].ledger.get(IDS), strict=True))

    def _check_move(self, name: str, old: Record | None, new: Record | None, told: str) -> None:
        if new is None:
            assert old is None or (name == "advance" and old.ended), told
            return
        move = (old.state if old else None, new.state)
        if move[0] is not move[1]:
            self.moves.add((name, move))
            assert move in _allowed(name), (name, move, told)
        if old is None:
            return
        assert not (old.ended and move[0] is not move[1]), told
        assert new.launch == old.launch or (new.launch == old.launch + 1 and new.state is State.QUEUED), told
        assert old.attempt <= new.attempt <= old.attempt + 1, told
        if new.launch == old.launch and old.args and not new.ended:
            assert (new.args, new.target) == (old.args, old.target), told

    def _choose(self, records: Records) -> tuple[str, Run]:
        rng = self._rng
        record = records[rng.choice(IDS)] or Record(id=rng.choice(IDS))
        names, weights = zip(*_WEIGHTS.items(), strict=True)
        # What fits its state is chosen more often: else hardly anything would ever be launched.
        name = rng.choice(_FITTING[record.state]) if rng.random() < 0.6 else rng.choices(names, weights)[0]
        if not record.digest and rng.random() < 0.7:
            name = rng.choice(("put", "admit"))
        run: Run = getattr(self, f"_{name}")(record)
        self._done.append(f"{name}({record.id})")
        return name, run

    def _now(self) -> float:
        return self._labs[0].clock.time

    def _fresh(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}-{self._serial}"

    def _mostly(self, right: Any, *wrong: Any) -> Any:
        return right if self._rng.random() < 0.85 else self._rng.choice(wrong)

    def _submission(self, record: Record) -> Any:
        rng, now = self._rng, self._now()
        return submission(
            record.id,
            nonce=self._mostly(record.nonce or self._fresh("nonce"), self._fresh("nonce")),
            digest=self._mostly(record.digest or "d1", "d1", "d2"),
            queue=record.queue or rng.choice(QUEUES),
            owner=record.owner or rng.choice(OWNERS),
            accept_until=now + rng.choice((0.0, 600.0, 86400.0, 86400.0, 86400.0)),
            expires_at=now + expires_in if (expires_in := rng.choice((0.0, 60.0, 2400.0, 7200.0))) else 0.0,
            time_limit=rng.choice((0.0, 90.5)),
        )

    def _offer(self) -> Any:
        args, limit = self._mostly(self._fresh("args"), ""), self._rng.choice((0, 0, 0, 1))
        return offer(self._fresh("claim"), args=args, target=self._fresh("target"), limit=limit)

    def _claim_of(self, record: Record) -> str:
        return str(self._mostly(record.claim, "", "claim-1", self._fresh("claim")))

    def _advance(self, record: Record) -> Run:
        step = self._rng.choice(STEPS)
        for lab in self._labs:
            lab.advance(step)
        return lambda ledger: ledger.now()

    def _put(self, record: Record) -> Run:
        new = self._submission(record)
        return lambda ledger: ledger.put([new])

    def _admit(self, record: Record) -> Run:
        new, bid = self._submission(record), self._offer()
        return lambda ledger: ledger.admit(new, bid)

    def _claim(self, record: Record) -> Run:
        bid = self._mostly(self._offer(), None)
        return lambda ledger: ledger.claim(record.id, bid)

    def _reclaim(self, record: Record) -> Run:
        bid = self._offer()
        return lambda ledger: ledger.reclaim(record.id, bid)

    def _launched(self, record: Record) -> Run:
        nonce = self._mostly(record.nonce, "wrong")
        launch = self._mostly(record.launch, record.launch - 1, record.launch + 1)
        arn, wait = self._mostly(f"arn:{record.id}:{launch}", "arn:other"), self._rng.choice(WAITS)
        return lambda ledger: ledger.launched(record.id, nonce, launch, arn, wait)

    def _unsure(self, record: Record) -> Run:
        claim, wait, answered = self._claim_of(record), self._rng.choice(WAITS), self._rng.choice(("", "1"))
        return lambda ledger: ledger.unsure(record.id, claim, wait, "in doubt", answered)

    def _no_effect(self, record: Record) -> Run:
        claim, wait = self._claim_of(record), self._rng.choice(WAITS)
        return lambda ledger: ledger.no_effect(record.id, claim, wait, "throttled")

    def _refused(self, record: Record) -> Run:
        claim = self._claim_of(record)
        no = refusal(self._rng.choice(list(RefusalKind)), self._rng.choice(WAITS), self._rng.choice((1, 3)))
        return lambda ledger: ledger.refused(record.id, claim, no)

    def _none(self, record: Record) -> Run:
        claim, wait = self._claim_of(record), self._rng.choice(WAITS)
        return lambda ledger: ledger.none(record.id, claim, wait)

    def _outcome(self, record: Record) -> Run:
        rng = self._rng
        end = rng.choice((None, None, None, *sorted(TERMINAL)))
        words = seen(
            record,
            version=self._mostly(record.version + 1, record.version, 0, record.version + 5),
            launch=self._mostly(record.launch, record.launch + 1),
            arn=self._mostly(record.arn, "arn:other"),
            wait=rng.choice(WAITS),
            started_at=rng.choice((0.0, self._now() - 1)),
            end=end,
            retry=bool(end) and rng.random() < 0.5,
            by_user=bool(end) and rng.random() < 0.4,
            max_attempts=rng.choice((1, 3)),
            finished_at=rng.choice((0.0, self._now() - 0.5)),
            exit_code=rng.choice((None, 0, 137)) if end else None,
            stop_code=rng.choice(("", "UserInitiated")),
            reason=rng.choice(("", "exit 137")),
        )
        return lambda ledger: ledger.outcomes([words])

    def _rest(self, record: Record) -> Run:
        looks = {record.id: self._rng.choice(WAITS)}
        return lambda ledger: ledger.rest(looks)

    def _stop(self, record: Record) -> Run:
        by = self._rng.choice(("ann", STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT))
        launch = 0 if by == "ann" else record.launch
        return lambda ledger: ledger.stop([record.id], by, launch)

    def _adopt(self, record: Record) -> Run:
        owner = self._rng.choice(OWNERS)
        return lambda ledger: ledger.adopt([record.id], owner)

    def _confirm(self, record: Record) -> Run:
        pair, owner = (record.id, self._mostly(record.nonce, "wrong")), self._mostly(record.owner, *OWNERS)
        return lambda ledger: ledger.confirm([pair], owner)

    def _pop(self, record: Record) -> Run:
        limit, queue = self._rng.choice((1, 10)), self._rng.choice(QUEUES)
        pops: list[Run] = [
            lambda ledger: ledger.due(limit),
            lambda ledger: ledger.due_retries(queue, limit),
            lambda ledger: ledger.due_silent(queue, limit),
            lambda ledger: ledger.due_expired(limit),
        ]
        return self._rng.choice(pops)

    def _ask(self, record: Record) -> Run:
        owner, arn = self._rng.choice(OWNERS), record.arn or "arn:none"
        return lambda ledger: (ledger.undelivered(owner, 10), ledger.id_of(arn))

    def _pause(self, record: Record) -> Run:
        queue = self._rng.choice(QUEUES)

        def pause(ledger: Ledger) -> Any:
            ledger.pause([queue])
            return ledger.paused()

        return pause

    def _resume(self, record: Record) -> Run:
        def resume(ledger: Ledger) -> Any:
            ledger.resume(QUEUES)
            return ledger.paused()

        return resume

    def _prune(self, record: Record) -> Run:
        return lambda ledger: ledger.prune(10)


_WEIGHTS = {
    "advance": 14,
    "put": 4,
    "admit": 4,
    "claim": 6,
    "reclaim": 6,
    "launched": 6,
    "unsure": 3,
    "no_effect": 4,
    "refused": 4,
    "none": 4,
    "outcome": 8,
    "rest": 2,
    "stop": 2,
    "adopt": 2,
    "confirm": 3,
    "pop": 8,
    "ask": 2,
    "prune": 2,
    "pause": 1,
    "resume": 3,
}
_FITTING = {
    State.QUEUED: ("claim", "claim", "advance", "pop"),
    State.LAUNCHING: (
        "reclaim",
        "launched",
        "no_effect",
        "refused",
        "none",
        "unsure",
        "advance",
        "advance",
        "none",
        "stop",
    ),
    State.LAUNCHED: ("outcome", "outcome", "pop", "advance"),
} | dict.fromkeys(TERMINAL, ("confirm", "advance", "advance", "put"))


def _allowed(name: str) -> frozenset[Any]:
    """The moves an operation may make; admit's are those of put, of claim, and of one after the other."""
    if name == "admit":
        composed = {(None, end) for start, end in TRANSITIONS["claim"] if (None, start) in TRANSITIONS["put"]}
        return TRANSITIONS["put"] | TRANSITIONS["claim"] | composed
    return TRANSITIONS.get(name, frozenset())


def _plain(value: Any) -> Any:
    """Comparable: records as dictionaries, times to the millisecond."""
    if isinstance(value, Record | Answer):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def check_record(record: Record | None, told: str = "") -> None:
    """What is true of a record at any time."""
    if record is None:
        return
    assert not (record.state is State.QUEUED and (record.stop_by or record.first_called_at)), told
    assert bool(record.claim) <= (record.state is State.LAUNCHING), told
    assert (record.dirty or record.burnt) <= (record.state is State.LAUNCHING), told
    assert bool(record.arn) >= (record.state is State.LAUNCHED), told
    assert not (record.state in (State.QUEUED, State.LAUNCHING) and record.arn), told
    assert bool(record.request) != record.ended, told
    assert not (record.ended and (record.args or record.not_before or record.lease_until)), told
    assert bool(record.finished_at) == record.ended, told
    assert record.undelivered <= (record.ended and bool(record.owner)), told
    assert 0 <= record.attempts <= record.attempt, told
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record, told
