"""Follows launched tasks to their end: due records, in batches of 100, with DescribeTasks at most at the quota.

No worker is special: `Ledger.due` leases what it hands out, and when this worker dies the records come due again
elsewhere. Two trackers on one task do no harm: an outcome is a compare-and-set.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ecs_queue.core.answers import ReadTrouble, TroubleKind
from ecs_queue.core.decide import after_missing, lost_outcome
from ecs_queue.core.lifecycle import looks_only
from ecs_queue.core.plan import queued_task
from ecs_queue.core.protocol import Outcome
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.crashpoints import reach
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH
from ecs_queue.errors import PermanentError, RetryableError
from ecs_queue.launcher.judge import Judge
from ecs_queue.launcher.lanes import IN_DOUBT, Job, JobKind
from ecs_queue.launcher.missing import Missing
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.quota import Quota
from ecs_queue.launcher.slots import Slots

#: The most records that one round takes: ten describe calls.
_ROUND = 1000
#: Seconds between rounds: how long a marked stop may wait for somebody to see it.
_TICK = 0.25
#: How often the number of tasks in flight is read, which the polling adapts to, and what is over is forgotten. Seconds.
_TIDY_EVERY = 5.0
#: Seconds until the next look after trouble, and after trouble that will not pass by itself.
_AFTER_TROUBLE, _AFTER_LASTING_TROUBLE = 2.0, 60.0
#: How often, and after how many seconds, a suspect asks for its turn before it is left for later.
_TURNS, _TURN = 20, 0.05
#: A cluster that does not exist must have been missed for so many times the grace time (an hour by default).
_GONE_GRACES = 6
#: Seconds until a launch in doubt is looked at again for which there was no room.
_NO_ROOM = 2.0


class Tracker:
    """`recover` takes LAUNCHING records whose lease is over, with the quota whose token it is given.

    One thread calls `step`.
    """

    def __init__(self, parts: Parts, slots: Slots, recover: Callable[[Record, Quota], None]) -> None:
        self._parts = parts
        self._slots = slots
        self._recover = recover
        self._missing = Missing(parts.monotonic, parts.config.settle_seconds)
        self.judge = Judge(parts, slots)
        self._one_at_a_time = threading.Lock()
        self._tidied_at = float("-inf")

    def step(self) -> float:
        """One round; how many seconds to rest before the next."""
        due = self._parts.ledger.due(_ROUND)
        if due:
            reach("track.due")
        self._tidy(bool(due))
        self._recover_some([record for record in due if record.state is State.LAUNCHING])
        batches: dict[str, list[Record]] = {}
        for record in due:
            if record.state is State.LAUNCHED:
                batches.setdefault(self._parts.trust.target_text(record), []).append(record)
        for encoded, records in batches.items():
            self._follow(encoded, records)
        return 0.0 if len(due) == _ROUND else _TICK

    def _recover_some(self, records: Sequence[Record]) -> None:
        """As many as there is room for: after an outage there may be thousands, and each comes due again and again."""
        later: dict[str, float] = {}
        now = self._parts.ledger.now() if records else 0.0
        for record in records:
            if self._slots.room(record.queue, JobKind.RECOVER):
                self._parts.telemetry.emit("launch.due", id=record.id, launch=record.launch)
                self._slots.submit(self._recovery(record, now))
            else:
                later[record.id] = _NO_ROOM
        if later:
            self._parts.ledger.rest(later)

    def _recovery(self, record: Record, now: float) -> Job:
        """With the token of the call that it will most probably be."""
        parts = self._parts
        looks = looks_only(record, now, parts.config.startup_allowance)
        quota = parts.read_quota if looks else parts.run_quota
        target: Target | None = None
        with suppress(PermanentError):  # `recover` tells of it
            target = Target.decode(parts.trust.target_text(record))
        permit = None if target is None else quota.permit(target)
        recover = partial(self._recover, record, quota)
        if record.holds:  # no word came of its last holder: it died?
            recover = partial(self._recover_in_turn, record, quota, target)
        return Job(recover, JobKind.RECOVER, record.queue, IN_DOUBT, permit)

    def _recover_in_turn(self, record: Record, quota: Quota, target: Target | None) -> None:
        """One suspect at a time: it may break this worker, and the others must not be counted with it.

        `target`: where the token is for; None: there is none.
        """
        for _ in range(_TURNS):
            if self._one_at_a_time.acquire(blocking=False):
                try:
                    self._recover(record, quota)
                finally:
                    self._one_at_a_time.release()
                return
            if self._parts.rest(_TURN):
                break
        if target is not None:
            quota.give_back(target)
        self._parts.ledger.rest({record.id: _NO_ROOM})

    def _follow(self, encoded: str, records: list[Record]) -> None:
        try:
            target = Target.decode(encoded)
        except PermanentError as error:
            if encoded:  # else it is only this worker that has no configuration for their queue
                self._end_stopped(records, str(error))
            self._trouble(records, str(error), _AFTER_LASTING_TROUBLE)
            return
        self._take_up(records)
        self._describe_in_batches(target, records, DESCRIBE_BATCH)

    def _describe_in_batches(self, target: Target, records: list[Record], size: int) -> None:
        """As many as the quota allows now; the others' looks are put off, and another account's need not wait."""
        for start in range(0, len(records), size):
            wait = self._parts.read_quota.take(target, ahead=math.ceil((len(records) - start) / size))
            if wait:
                late = records[start:]
                self._parts.ledger.rest(dict.fromkeys((record.id for record in late), max(wait, _TICK)))
                return
            self._describe(target, records[start : start + size])

    def _end_stopped(self, records: Sequence[Record], why: str) -> None:
        """A newer worker may know the target. Somebody who asks for a stop must not wait for one: UNKNOWN."""
        stopped = [record for record in records if record.stop_by]
        news = [
            lost_outcome(record, f"it was to be stopped (by {record.stop_by}), but {why} Stop {record.arn} by hand")
            for record in stopped
        ]
        if not news:
            return
        answers = self._parts.ledger.outcomes(news)
        reach("track.stop_unread")
        for record, outcome, answer in zip(stopped, news, answers, strict=True):
            self.judge.tell(record, outcome, answer)

    def _take_up(self, records: Sequence[Record]) -> None:
        """Launched elsewhere, followed here from now on: fetch what the due records leave out."""
        unknown = self._parts.in_flight.unknown([record.id for record in records])
        for record in self._parts.ledger.get(unknown) if unknown else ():
            if record is not None and record.state is State.LAUNCHED and record.request:
                request = self._parts.trust.readable(record)
                if request is None:
                    continue  # a newer worker's: it is followed all the same
                self._parts.in_flight.add(record.arn, queued_task(request, record.attempt, record.not_before))

    def _describe(self, target: Target, batch: list[Record]) -> None:
        """The token of this call has been taken."""
        shown = self._parts.gateway.describe_tasks(target, [record.arn for record in batch])
        reach("track.described")
        trouble = shown.trouble
        if trouble is not None and trouble.kind is TroubleKind.INVALID and len(batch) > 1:
            # One bad ARN spoils the batch: find it by halves.
            self._describe_in_batches(target, batch, (len(batch) + 1) // 2)
            return
        if trouble is not None and trouble.kind is TroubleKind.THROTTLED:
            self._parts.read_quota.throttled(target)
        queues = {record.queue for record in batch}
        if trouble is None:
            self._parts.circuits.no_trouble(queues, "DescribeTasks")
            by_arn = {str(task.get("taskArn")): task for task in shown.tasks}
            self._judge(target, batch, by_arn, dict.fromkeys(shown.missing, ""))
            return
        for queue in queues:
            self._parts.circuits.trouble(queue, "DescribeTasks", trouble)
        if trouble.kind is TroubleKind.GONE:
            self._judge(target, batch, {}, dict.fromkeys((record.arn for record in batch), trouble.reason))
        else:
            self._trouble(batch, trouble.reason, _wait_after(trouble))

    def _judge(
        self, target: Target, batch: list[Record], by_arn: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str]
    ) -> None:
        """`missing`: the ARNs that ECS does not know, each with the reason when there is more to say than that."""
        now = self._parts.ledger.now()
        looks: dict[str, float] = {}
        news: list[Outcome] = []
        records = {record.id: record for record in batch}
        for record in batch:
            found = self._look_at(target, record, by_arn.get(record.arn), missing.get(record.arn), now)
            if isinstance(found, Outcome):
                news.append(found)
            else:
                looks[record.id] = found
        if looks:
            self._parts.ledger.rest(looks)
            reach("track.rested")
        answers = self._parts.ledger.outcomes(news)
        if news:
            reach("track.outcome")
        for outcome, answer in zip(news, answers, strict=True):
            self.judge.tell(records[outcome.id], outcome, answer)

    def _look_at(
        self, target: Target, record: Record, task: Mapping[str, Any] | None, missing: str | None, now: float
    ) -> Outcome | float:
        """News for the ledger, or in how many seconds to look again."""
        if task is None:
            return _AFTER_TROUBLE if missing is None else self._not_shown(record, missing, now)
        self._missing.shown(record.arn)
        try:
            return self.judge.polled(target, record, task, now)
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - one task that nobody can read must not hide the others
            reason = f"{record.arn}: {type(error).__name__}: {error}"
            self._parts.telemetry.emit("describe.trouble", tasks=1, reason=reason)
            return _AFTER_LASTING_TROUBLE

    def _not_shown(self, record: Record, why: str, now: float) -> Outcome | float:
        """MISSING: right after RunTask it means "not visible yet"; only after the grace time is the task lost.

        `why`: the cluster is gone, says ECS. Wrong credentials look the same, so that is given more time.
        """
        self._parts.telemetry.emit("task.missing", id=record.id, arn=record.arn)
        grace = self._parts.config.settle_seconds * (_GONE_GRACES if why else 1)
        gone_for = min(self._missing.not_shown(record.arn), now - record.launched_at)
        if gone_for >= grace and not self._parts.pace.may_be_lost(record, now - gone_for, now):
            grace = math.inf  # its end may be among the events
        found = after_missing(record, gone_for, grace, why)
        if isinstance(found, Outcome):
            told = {"id": record.id, "arn": record.arn}
            inputs = {"record": record, "gone_for": gone_for, "grace": grace, "why": why}
            self._parts.telemetry.emit("decision.missing", **told, **inputs, took=found)
            self._missing.shown(record.arn)
        return found

    def _trouble(self, records: Sequence[Record], reason: str, wait: float) -> None:
        self._parts.telemetry.emit("describe.trouble", tasks=len(records), reason=reason)
        self._parts.ledger.rest(dict.fromkeys((record.id for record in records), wait))

    def _tidy(self, has_work: bool) -> None:
        """Now and then: forget what is over, and count what all workers follow, for the quota is shared."""
        if self._parts.monotonic() - self._tidied_at < _TIDY_EVERY:
            return
        self._tidied_at = self._parts.monotonic()
        self._parts.in_flight.forget_untouched()
        self._missing.forget_old()
        self.judge.forget_old()
        # With events hardly anything is due, and what they tell of is given its next look by this number, too.
        if has_work or self._parts.config.has_events():
            counts = self._parts.ledger.counts().values()
            self._parts.pace.in_flight = sum(states.get(State.LAUNCHED, 0) for states in counts)


def _wait_after(trouble: ReadTrouble) -> float:
    lasting = trouble.kind in (TroubleKind.INVALID, TroubleKind.DENIED)
    return _AFTER_LASTING_TROUBLE if lasting else _AFTER_TROUBLE
