"""The launch protocol as pure functions over one record: each decides one atomic operation (PROTOCOL.md).

Every function takes the record, changes it in place and answers with a `Word`; `now` is the ledger's clock. The
in-memory ledger calls these; the Redis ledger runs the same rules in Lua, and one conformance suite plus a random
comparison of both holds them together.

Positive facts ("task X exists for launch n") are accepted from anyone; negative facts ("nothing was started") only
from the clean holder of the claim.
"""

from __future__ import annotations

from ecs_queue.core.breaking import breaks_workers, broken_reason, speak
from ecs_queue.core.protocol import ClaimOffer, Crowd, Outcome, Refusal, RefusalKind, Rules, Word
from ecs_queue.core.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, Submission
from ecs_queue.core.states import State

#: After so long ListTasks may soon forget a short task: from here on only look. Seconds.
LOOK_ONLY_AFTER = 40 * 60
#: After so long a short task's token and its list entry are both gone: an empty list proves nothing. Seconds.
PROOF_ENDS_AFTER = 60 * 60
#: What to do about a launch of which nothing can be proved any more.
LOOK_BY_HAND = "look for it by hand"
#: Times are kept to the millisecond.
_HALF_A_MILLISECOND = 0.0005


def put(record: Record | None, new: Submission, now: float) -> tuple[Word, Record | None]:
    """created / same / conflict / too_late, with the record there is now."""
    if record is None:
        if now >= new.accept_until:
            return Word.TOO_LATE, None
        return Word.CREATED, Record(
            id=new.id,
            nonce=new.nonce,
            digest=new.digest,
            queue=new.queue,
            owner=new.owner,
            relaunch=new.relaunch,
            request=new.body,
            accept_until=new.accept_until,
            expires_at=new.expires_at,
            time_limit=new.time_limit,
            created_at=now,
        )
    if record.ended and not record.digest:  # a stop came before the request: this is the request it was meant for
        record.nonce, record.digest = new.nonce, new.digest
        record.owner = record.owner or new.owner  # an adoption may have come before, too
        record.queue, record.accept_until = new.queue, new.accept_until
        record.undelivered = bool(record.owner)
        return Word.ENDED, record
    return (Word.SAME if record.digest == new.digest else Word.CONFLICT), record


def expired(record: Record, now: float, rules: Rules) -> bool:
    """Whether it is too late to start it."""
    return _too_late(record, now, rules.startup_allowance)


def claim(record: Record, offer: ClaimOffer | None, now: float, rules: Rules, crowd: Crowd) -> Word:
    """QUEUED and due: CALL, ENDED (expired), PAUSED, FULL or MOVED_ON. No offer: only end what has expired.

    A stopped record is never QUEUED: whatever would queue it again ends it instead.
    """
    if record.state is not State.QUEUED:
        return Word.MOVED_ON
    if expired(record, now, rules):
        _finish(record, State.EXPIRED, record.attempt - 1, now, _expiry_reason(record))
        return Word.ENDED
    if offer is None or record.not_before > now:
        return Word.MOVED_ON
    if offer.nonce and (offer.nonce, offer.launch) != (record.nonce, record.launch):
        return Word.MOVED_ON
    held = _held_back(offer, rules, crowd)
    if held is not None:
        record.not_before = now + 1
        return held
    if not record.args:
        record.args, record.target = offer.args, offer.target
    record.state = State.LAUNCHING
    record.not_before = 0.0
    record.calls += 1
    record.first_called_at = record.last_claim_at = now
    _hold(record, offer, now, rules)
    return Word.CALL


def reclaim(record: Record, offer: ClaimOffer, now: float, rules: Rules, holder_lives: bool) -> Word:
    """Take over a LAUNCHING record whose lease is over: CALL again, or only LOOK.

    `holder_lives`: the former holder was heard of lately, so it lost the ledger's answer and did not die of the record.
    Of one that breaks its workers no call is made any more, and when looking for it breaks them too, nobody looks:
    ENDED.
    """
    if record.state is not State.LAUNCHING or record.lease_until > now:
        return Word.MOVED_ON
    if holder_lives:
        record.holds = max(0, record.holds - 1)
    if record.holds > 2 * rules.max_deliveries:
        reason = f"{broken_reason(rules.max_deliveries)}; whether a task was started is not known: look for it by hand"
        _finish(record, State.UNKNOWN, record.attempt, now, reason)
        return Word.ENDED
    record.dirty = True
    _hold(record, offer, now, rules)
    if breaks_workers(record, rules):
        record.burnt = True
        record.reason = broken_reason(rules.max_deliveries)
    if looks_only(record, now, rules.startup_allowance):
        return Word.LOOK
    record.calls += 1
    record.last_claim_at = now
    return Word.CALL


def looks_only(record: Record, now: float, startup_allowance: float) -> bool:
    """Whether a LAUNCHING record whose lease is over must not be called again, only looked for."""
    return (
        bool(record.stop_by)
        or record.burnt
        or _too_late(record, now, startup_allowance)
        or now - record.first_called_at >= LOOK_ONLY_AFTER
    )


def safe_at(record: Record, rules: Rules) -> float:
    """H: from then on an empty list proves that nothing was started."""
    return record.last_claim_at + rules.lease_seconds + rules.settle_seconds


def launched(record: Record, nonce: str, launch: int, arn: str, now: float) -> Word:
    """A task exists for this launch: OK, SAME, or STOP_IT when the record has no use for it."""
    if record.nonce != nonce or record.launch != launch:
        return Word.STOP_IT
    if record.arn == arn and record.state is not State.QUEUED:
        return Word.SAME
    if record.state not in (State.LAUNCHING, State.QUEUED):
        return Word.STOP_IT
    record.state = State.LAUNCHED
    record.arn = arn
    record.launched_at = now
    record.reason = ""
    record.not_before = 0.0
    record.calls = 0
    _release(record)
    return Word.OK


def unsure(record: Record, token: str, answered: str, reason: str, now: float, rules: Rules) -> Word:
    """The call may have taken effect. `answered` "1": ECS has ended the call with a 5xx, so it cannot act later."""
    if not _holds(record, token):
        return Word.LOST
    if answered != "1":
        record.dirty = True
    record.claim = ""  # its holder has given up: nothing it may say later is the word of a clean holder
    record.lease_until = now
    record.reason = reason
    speak(record, rules)
    return Word.OK


def no_effect(record: Record, token: str, wait: float, reason: str, now: float, rules: Rules) -> Word:
    """Throttled or never sent: the same launch number again later, unless an earlier call of it is in doubt."""
    if not _holds(record, token):
        return Word.LOST
    record.reason = reason
    if record.dirty:
        record.lease_until = now
        speak(record, rules)
        return Word.OK
    if record.stop_by:
        _finish(record, State.REVOKED, record.attempt - 1, now, _stop_reason(record))
        return Word.ENDED
    record.state = State.QUEUED
    record.not_before = now + wait
    record.first_called_at = record.last_claim_at = 0.0
    _release(record)
    return Word.OK


def refused(record: Record, token: str, no: Refusal, now: float, rules: Rules) -> Word:
    """A definitive "no". From a holder in doubt it proves nothing: the number is burnt, only looks follow."""
    if not _holds(record, token):
        return Word.LOST
    record.reason = no.reason
    if record.dirty:
        record.burnt = True
        record.lease_until = now
        speak(record, rules)
        return Word.OK
    if record.stop_by:
        made = record.attempt - 1 if no.kind is RefusalKind.CAPACITY else record.attempt
        _finish(record, State.REVOKED, made, now, _stop_reason(record))
        return Word.ENDED
    if no.kind is RefusalKind.PERMANENT:
        _finish(record, State.FAILED, record.attempt, now, no.reason)
        return Word.ENDED
    if no.kind is RefusalKind.START_FAILURE:
        if record.attempt >= no.max_attempts:
            _finish(record, State.REMOVED, record.attempt, now, no.reason)
            return Word.ENDED
        record.attempt += 1
        record.calls = 0
    _next_launch(record, now + no.wait)
    return Word.RETRY


def none(record: Record, token: str, wait: float, why: str, now: float, rules: Rules) -> Word:
    """Looked, and found nothing: proof after H, and only while ECS would still list a short task.

    The look was made at some time after the claim, and before now: so the claim itself must not be older than H,
    else a call that arrives between the look and H would be missed. `why`: what to do when nothing is proof any more.
    """
    if not _holds(record, token):
        return Word.LOST
    claimed_at = record.lease_until - rules.lease_seconds
    if claimed_at < safe_at(record, rules) - _HALF_A_MILLISECOND:
        record.lease_until = now
        speak(record, rules)
        return Word.EARLY
    if now - record.first_called_at > PROOF_ENDS_AFTER:
        reason = f"nobody saw whether RunTask started a task, and after an hour ECS cannot tell: {why}"
        _finish(record, State.UNKNOWN, record.attempt, now, reason)
        return Word.ENDED
    if record.stop_by:
        _finish(record, State.REVOKED, record.attempt - 1, now, _stop_reason(record))
        return Word.ENDED
    if breaks_workers(record, rules):
        _finish(record, State.FAILED, record.attempt - 1, now, broken_reason(rules.max_deliveries))
        return Word.ENDED
    if expired(record, now, rules):
        _finish(record, State.EXPIRED, record.attempt - 1, now, _expiry_reason(record))
        return Word.ENDED
    _next_launch(record, now + wait)
    return Word.RETRY


def outcome(record: Record, seen: Outcome, now: float) -> Word:
    """What a look showed: OK (noted), RETRY, ENDED, or STALE when the record knows better."""
    if record.state is not State.LAUNCHED or record.launch != seen.launch or record.arn != seen.arn:
        return Word.STALE
    unversioned = seen.version == 0 and record.version == 0
    if seen.version <= record.version and not unversioned:
        return Word.STALE
    record.version = seen.version
    record.last_status = seen.last_status
    record.started_at = seen.started_at or record.started_at
    if seen.end is None:
        return Word.OK
    if seen.retry and not record.stop_by and record.attempt < seen.max_attempts:
        record.attempt += 1
        record.reason = seen.reason
        record.calls = 0
        _next_launch(record, now + seen.wait)
        return Word.RETRY
    state, reason = _end_of(record, seen)
    record.exit_code = seen.exit_code
    record.stop_code = seen.stop_code
    _finish(record, state, record.attempt, seen.finished_at or now, reason)
    return Word.ENDED


def stop(record: Record, by: str, launch: int, now: float) -> Word:
    """Ask for a stop. QUEUED ends at once; a live one is marked. `launch` > 0: only if LAUNCHED with this number."""
    if record.ended:
        return Word.SAME
    if launch and (record.state is not State.LAUNCHED or record.launch != launch):
        return Word.STALE
    record.stop_by = record.stop_by or by
    record.stop_at = record.stop_at or now
    if record.state is State.QUEUED:
        _finish(record, State.REVOKED, record.attempt - 1, now, _stop_reason(record))
        return Word.ENDED
    return Word.MARKED


def tombstone(record_id: str, by: str, now: float, rules: Rules) -> Record:
    """What a stop leaves for a request that has not arrived yet, for as long as it may still arrive."""
    accept_until = now + rules.accept_seconds
    record = Record(id=record_id, created_at=now, accept_until=accept_until, stop_by=by, stop_at=now)
    _finish(record, State.REVOKED, 0, now, _stop_reason(record))
    return record


def adopt(record: Record, owner: str) -> Word:
    """Results go to another owner from now on; a finished one is delivered again."""
    record.owner = owner
    if not record.ended:
        return Word.OK
    record.undelivered = bool(owner)
    record.confirmed_at = 0.0
    return Word.ENDED


def confirm(record: Record, nonce: str, owner: str, now: float) -> Word:
    """The owner has the result."""
    if not record.ended or record.nonce != nonce or record.owner != owner:
        return Word.NOT_YOURS
    record.undelivered = False
    record.confirmed_at = record.confirmed_at or now
    return Word.OK


def _too_late(record: Record, now: float, startup_allowance: float) -> bool:
    return bool(record.expires_at) and now + startup_allowance >= record.expires_at


def _held_back(offer: ClaimOffer, rules: Rules, crowd: Crowd) -> Word | None:
    if crowd.paused:
        return Word.PAUSED
    if rules.max_in_flight and crowd.total >= rules.max_in_flight:
        return Word.FULL
    return Word.FULL if offer.limit and crowd.queue >= offer.limit else None


def _end_of(record: Record, seen: Outcome) -> tuple[State, str]:
    """The state and reason of an ended task: a stop of ours names the end only if ECS says a user stopped it."""
    if seen.end is None:
        raise ValueError("the task has not ended")
    if not (record.stop_by and seen.by_user):
        return seen.end, seen.reason
    if record.stop_by == STOPPED_BY_EXPIRY:
        state = State.FAILED if record.started_at else State.EXPIRED
        return state, _expiry_reason(record)
    if record.stop_by == STOPPED_BY_TIME_LIMIT:
        return State.FAILED, f"stopped: it ran longer than its time limit of {record.time_limit:.15g} s"
    return State.REVOKED, _stop_reason(record)


def _stop_reason(record: Record) -> str:
    return f"stopped by {record.stop_by}"


def _expiry_reason(record: Record) -> str:
    waited = f"; it waited because: {record.reason}" if record.reason else ""
    if not record.reason and record.launch == 1 and not record.calls:
        waited = f"; no worker came to it: is one alive that takes from the queue {record.queue}?"
    return f"not started before its deadline (expires_in or launch_deadline){waited}"


def _holds(record: Record, token: str) -> bool:
    return record.state is State.LAUNCHING and bool(token) and record.claim == token


def _hold(record: Record, offer: ClaimOffer, now: float, rules: Rules) -> None:
    record.claim = offer.claim
    record.worker = offer.worker
    record.lease_until = now + rules.lease_seconds
    record.holds += 1


def _release(record: Record) -> None:
    record.claim = ""
    record.lease_until = 0.0
    record.dirty = record.burnt = False
    record.holds = 0


def _next_launch(record: Record, not_before: float) -> None:
    """QUEUED under the next number: nothing of the old launch is carried over."""
    record.state = State.QUEUED
    record.launch += 1
    record.not_before = not_before
    record.first_called_at = record.last_claim_at = 0.0
    record.args = record.target = record.arn = record.last_status = ""
    record.version = 0
    record.launched_at = record.started_at = 0.0
    _release(record)


def _finish(record: Record, state: State, attempts: int, at: float, reason: str) -> None:
    record.state = state
    record.attempts = attempts
    record.finished_at = at
    record.reason = reason
    record.undelivered = bool(record.owner)
    record.request = b""
    record.args = ""
    record.not_before = 0.0
    _release(record)
