"""The ledger in one process's memory: for tests, simulations and `memory://`. Thread-safe; lost with the process."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ecs_queue.core import lifecycle
from ecs_queue.core.protocol import Answer, ClaimOffer, Crowd, Outcome, Refusal, Rules, Word
from ecs_queue.core.record import Record, Submission
from ecs_queue.core.states import LIVE, State
from ecs_queue.ledger.memory_shared import SharedState
from ecs_queue.ledger.retention import Retention
from ecs_queue.ledger.view import copy_of, lives, shelf_of, shown_of


class MemoryLedger(SharedState):
    """`clock`: seconds since the epoch. Answers hold copies, so no caller can change a record behind its back.

    Answers leave out `request` where the Redis form does.
    """

    def __init__(self, clock: Callable[[], float], rules: Rules, retention: Retention) -> None:
        super().__init__(clock)
        self._rules = rules
        self._retention = retention
        self._expiry: dict[str, float] = {}  # QUEUED records with a deadline: when somebody must end them
        self._gone_at: dict[str, float] = {}  # finished records: when they are forgotten
        self._ended_counts: defaultdict[tuple[str, State], int] = defaultdict(int)

    def put(self, submissions: Sequence[Submission]) -> list[Answer]:
        """See `Ledger.put`."""
        return [self._put(new) for new in submissions]

    def _put(self, new: Submission) -> Answer:
        with self._lock:
            now = self.now()
            word, record = lifecycle.put(self._kept(new.id), new, now)
            if record is None:
                return Answer(word)
            if word is Word.CREATED:
                self._gone_at.pop(record.id, None)  # of an earlier request with this id
                self._records[record.id] = record
                self._look_at[record.id] = now + self._rules.ring_seconds
                self._watch_expiry(record)
                return Answer(word)
            if word is Word.ENDED:
                self._keep(record, now)
            return Answer(word, shown_of(record))

    def admit(self, submission: Submission, offer: ClaimOffer) -> tuple[Answer, Answer]:
        """See `Ledger.admit`."""
        with self._lock:
            stored = self._put(submission)
            if stored.word in (Word.CREATED, Word.SAME):
                return Answer(stored.word), self.claim(submission.id, offer)
            return stored, Answer(Word.MISSING if stored.word is Word.TOO_LATE else Word.MOVED_ON)

    def claim(self, record_id: str, offer: ClaimOffer | None) -> Answer:
        """See `Ledger.claim`."""
        with self._changing(record_id) as (record, now):
            if record is None:
                return Answer(Word.MISSING)
            word = lifecycle.claim(record, offer, now, self._rules, self._crowd(record, offer))
            if word in (Word.CALL, Word.FULL, Word.PAUSED):
                self._look_at[record_id] = record.lease_until or record.not_before
            return Answer(word, None if word in (Word.FULL, Word.PAUSED) else shown_of(record))

    def reclaim(self, record_id: str, offer: ClaimOffer) -> Answer:
        """See `Ledger.reclaim`."""
        with self._changing(record_id) as (record, now):
            if record is None:
                return Answer(Word.MISSING)
            holder_lives = lives(record, self._workers.get(record.worker), now, self._rules)
            word = lifecycle.reclaim(record, offer, now, self._rules, holder_lives)
            if word in (Word.CALL, Word.LOOK):
                self._look_at[record_id] = record.lease_until
                return Answer(word, copy_of(record))
            return Answer(word, shown_of(record))

    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> Answer:
        """See `Ledger.launched`."""
        with self._changing(record_id) as (record, now):
            if record is None:
                return Answer(Word.STOP_IT)
            word = lifecycle.launched(record, nonce, launch, arn, now)
            if word is Word.OK:
                self._look_at[record_id] = now if record.stop_by else now + wait
            return Answer(word)

    def unsure(self, record_id: str, claim: str, wait: float, reason: str, answered: str = "") -> Answer:
        """See `Ledger.unsure`."""
        with self._changing(record_id) as (record, now):
            if record is None:
                return Answer(Word.LOST)
            word = lifecycle.unsure(record, claim, answered, reason, now, self._rules)
            return self._looked(record, word, now + wait)

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> Answer:
        """See `Ledger.no_effect`."""
        with self._changing(record_id) as (record, now):
            if record is None:
                return Answer(Word.LOST)
            word = lifecycle.no_effect(record, claim, wait, reason, now, self._rules)
            return self._looked(record, word, now + wait)

    def refused(self, record_id: str, claim: str, refusal: Refusal) -> Answer:
        """See `Ledger.refused`."""
        with self._changing(record_id) as (record, now):
            if record is None:
                return Answer(Word.LOST)
            word = lifecycle.refused(record, claim, refusal, now, self._rules)
            return self._looked(record, word, now + refusal.wait)

    def none(self, record_id: str, claim: str, wait: float, why: str = lifecycle.LOOK_BY_HAND) -> Answer:
        """See `Ledger.none`."""
        with self._changing(record_id) as (record, now):
            if record is None:
                return Answer(Word.LOST)
            safe_at = lifecycle.safe_at(record, self._rules)
            word = lifecycle.none(record, claim, wait, why, now, self._rules)
            return self._looked(record, word, min(safe_at, now + wait) if word is Word.EARLY else now + wait)

    def outcomes(self, outcomes: Sequence[Outcome]) -> list[Answer]:
        """See `Ledger.outcomes`."""
        return [self._outcome(seen) for seen in outcomes]

    def _outcome(self, seen: Outcome) -> Answer:
        with self._changing(seen.id) as (record, now):
            if record is None:
                return Answer(Word.MISSING)
            word = lifecycle.outcome(record, seen, now)
            if word is Word.OK and record.stop_by and self._look_at[record.id] <= now:
                return Answer(word)  # a stop has made it due since it was popped
            return self._looked(record, word, now + seen.wait)

    def rest(self, looks: Mapping[str, float]) -> None:
        """See `Ledger.rest`."""
        with self._lock:
            now = self.now()
            for record_id, wait in looks.items():
                record = self._kept(record_id)
                if record and shelf_of(record) == "due" and self._look_at[record_id] > now:
                    self._look_at[record_id] = now + wait

    def stop(self, ids: Sequence[str], by: str, launch: int = 0) -> list[Answer]:
        """See `Ledger.stop`."""
        return [self._stop(record_id, by, launch) for record_id in ids]

    def _stop(self, record_id: str, by: str, launch: int) -> Answer:
        with self._changing(record_id) as (record, now):
            if record is None and launch:
                return Answer(Word.MISSING)
            if record is None:
                record = lifecycle.tombstone(record_id, by, now, self._rules)
                self._records[record_id] = record
                self._ended_counts["", State.REVOKED] += 1
                self._keep(record, now)
                return Answer(Word.ENDED, shown_of(record))
            word = lifecycle.stop(record, by, launch, now)
            if word is Word.MARKED:
                self._look_at[record_id] = max(now, record.lease_until)
            return Answer(word, shown_of(record))

    def adopt(self, ids: Sequence[str], owner: str) -> list[Answer]:
        """See `Ledger.adopt`."""
        answers = []
        for record_id in ids:
            with self._changing(record_id) as (record, now):
                if record is None:
                    answers.append(Answer(Word.MISSING))
                    continue
                word = lifecycle.adopt(record, owner)
                self._keep(record, now)
                answers.append(Answer(word, shown_of(record)))
        return answers

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[Answer]:
        """See `Ledger.confirm`."""
        answers = []
        for record_id, nonce in results:
            with self._changing(record_id) as (record, now):
                word = lifecycle.confirm(record, nonce, owner, now) if record else Word.NOT_YOURS
                if record and word is Word.OK:
                    self._keep(record, now)
                answers.append(Answer(word))
        return answers

    def due(self, limit: int) -> list[Record]:
        """See `Ledger.due`."""
        return [shown_of(record) for record in self._pop("due", limit)]

    def due_retries(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.due_retries`."""
        return self._pop(f"retry:{queue}", limit)

    def due_silent(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.due_silent`."""
        return self._pop(f"silent:{queue}", limit)

    def _pop(self, shelf: str, limit: int) -> list[Record]:
        with self._lock:
            now = self.now()
            due = sorted((at, key) for key, at in self._look_at.items() if at <= now)
            found = [r for _, key in due if shelf_of(r := self._records[key]) == shelf][:limit]
            for record in found:
                self._look_at[record.id] = now + self._rules.lease_seconds
            return [copy_of(record) for record in found]

    def due_expired(self, limit: int) -> list[str]:
        """See `Ledger.due_expired`."""
        with self._lock:
            now = self.now()
            found = [key for at, key in sorted((at, key) for key, at in self._expiry.items()) if at <= now][:limit]
            for record_id in found:
                self._expiry[record_id] = now + self._rules.lease_seconds
            return found

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get`."""
        with self._lock:
            return [copy_of(r) if (r := self._kept(record_id)) else None for record_id in ids]

    def id_of(self, arn: str) -> str | None:
        """See `Ledger.id_of`."""
        with self._lock:
            return next((r.id for r in self._records.values() if r.arn == arn and not r.ended), None)

    def undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.undelivered`."""
        with self._lock:
            mine = [r for r in self._all() if r.undelivered and r.owner == owner]
            return [shown_of(r) for r in sorted(mine, key=lambda r: (r.finished_at, r.id))[:limit]]

    def page(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.page`."""
        with self._lock:
            live = sorted((r for r in self._all() if not r.ended), key=lambda r: -r.created_at)
            ended = sorted((r for r in self._all() if r.ended), key=lambda r: -self._gone_at[r.id])
            offset = int(after or 0)
            found = (live + ended)[offset : offset + limit]
            return [copy_of(r) for r in found], str(offset + limit) if len(found) == limit else ""

    def counts(self) -> dict[str, dict[State, int]]:
        """See `Ledger.counts`."""
        with self._lock:
            totals: dict[str, dict[State, int]] = defaultdict(dict)
            for (queue, state), number in self._ended_counts.items():
                totals[queue][state] = number
            for record in self._records.values():
                if not record.ended:
                    totals[record.queue][record.state] = totals[record.queue].get(record.state, 0) + 1
            return dict(totals)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`."""
        with self._lock:
            now = self.now()
            gone = [key for at, key in sorted((at, key) for key, at in self._gone_at.items()) if at <= now][:limit]
            for record_id in gone:
                del self._records[record_id], self._gone_at[record_id]
            self._letters.trim(now)
            return len(gone)

    def check(self) -> list[str]:
        """Nothing can be wrong with memory but that it is one."""
        return []

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def _changing(self, record_id: str) -> Iterator[tuple[Record | None, float]]:
        """The record under the lock; what its end entails follows on the way out."""
        with self._lock:
            now = self.now()
            record = self._kept(record_id)
            was = record.state if record else None
            yield record, now
            if record is None or record.state is was:
                return
            self._watch_expiry(record)
            if record.ended:
                self._look_at.pop(record_id, None)
                self._ended_counts[record.queue, record.state] += 1
                self._keep(record, now)

    def _watch_expiry(self, record: Record) -> None:
        if record.state is State.QUEUED and record.expires_at:
            self._expiry[record.id] = record.expires_at - self._rules.startup_allowance
        else:
            self._expiry.pop(record.id, None)

    def _looked(self, record: Record, word: Word, look_at: float) -> Answer:
        if word in (Word.OK, Word.RETRY, Word.EARLY):
            self._look_at[record.id] = look_at
        return Answer(word, shown_of(record) if word in (Word.RETRY, Word.ENDED) else None)

    def _keep(self, record: Record, now: float) -> None:
        if record.ended:
            self._gone_at[record.id] = self._retention.gone_at(record, now)

    def _kept(self, record_id: str) -> Record | None:
        """The record unless its retention is over."""
        return self._records.get(record_id) if self._gone_at.get(record_id, math.inf) > self.now() else None

    def _all(self) -> list[Record]:
        return [record for record_id in self._records if (record := self._kept(record_id))]

    def _crowd(self, record: Record, offer: ClaimOffer | None) -> Crowd:
        paused = record.queue in self._paused
        if not (self._rules.max_in_flight or (offer and offer.limit)):
            return Crowd(paused=paused)
        queues = [other.queue for other in self._records.values() if other.state in _IN_FLIGHT]
        return Crowd(total=len(queues), queue=queues.count(record.queue), paused=paused)


_IN_FLIGHT = LIVE - {State.QUEUED}
