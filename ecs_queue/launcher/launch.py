"""Takes one request from QUEUED to LAUNCHED, or as far as ECS lets it.

Every step is written so that the process may die before or after it: the claim is in the ledger before RunTask is
sent, the ARN is in the ledger before the message is acknowledged, and what is in doubt is settled by whoever comes
next (PROTOCOL.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ecs_queue.broker.base import Delivery
from ecs_queue.config import Config
from ecs_queue.core import envelope
from ecs_queue.core.answers import Kind, RunAnswer, TroubleKind
from ecs_queue.core.decide import AfterCall, Step, Write, after_call, after_conflict, after_list, next_step
from ecs_queue.core.envelope import TaskRequest
from ecs_queue.core.keyring import Keyring
from ecs_queue.core.plan import Plan, queued_task, submission_of
from ecs_queue.core.protocol import Answer, ClaimOffer, Refusal, RefusalKind, Word
from ecs_queue.core.record import Record, client_token_of, startedby_of
from ecs_queue.core.retry import Backoff, Draw
from ecs_queue.crashpoints import reach
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import ConfigError, SealedMessage, UndecodableMessage, UnverifiedMessage
from ecs_queue.keyring import open_keyring
from ecs_queue.launcher.circuit import Circuits
from ecs_queue.launcher.draft import Draft, draft_of
from ecs_queue.launcher.ends import tell_end, too_late
from ecs_queue.launcher.gates import Gates
from ecs_queue.launcher.inflight import InFlight
from ecs_queue.launcher.pace import Pace
from ecs_queue.launcher.quota import Permit, Quota
from ecs_queue.launcher.trust import Trust
from ecs_queue.ledger.base import DeadLetter, Ledger
from ecs_queue.telemetry import Telemetry, tell_submitted

#: The most seconds between looks for a task of a launch in doubt.
_LOOK_AGAIN = 30.0
#: Seconds that a record waits for a worker that has the key to it.
_UNTIL_SOMEBODY_CAN_READ_IT = 30.0
#: What is signed by nobody known here, and what only others can read.
_CANNOT_BE_USED = (UnverifiedMessage, SealedMessage)


@dataclass(frozen=True)
class Parts:
    """What a worker's services work with. Clocks, ids and randomness are handed in with them."""

    config: Config
    worker: str
    ledger: Ledger
    gateway: EcsGateway
    target_for: Callable[[str], Target]  # queue -> target; ConfigError
    run_quota: Quota
    stop_quota: Quota  # of the same bucket, and all of it
    read_quota: Quota
    circuits: Circuits
    gates: Gates
    in_flight: InFlight
    pace: Pace
    publish: Callable[[Record], None]  # announce the result of a record that has ended
    telemetry: Telemetry
    monotonic: Callable[[], float]
    rest: Callable[[float], bool]  # seconds -> whether the worker is stopping
    new_id: Callable[[], str]
    rng: random.Random

    @cached_property
    def keyring(self) -> Keyring:
        """The keys of the configuration."""
        return open_keyring(self.config)

    @cached_property
    def trust(self) -> Trust:
        """What of a record may be believed."""
        return Trust(self.keyring, self.target_for)

    def permit_for(self, queue: str) -> Permit | None:
        """What a launch of this queue needs. None as well where no target is known: then there will be no call."""
        try:
            return self.run_quota.permit(self.target_for(queue))
        except ConfigError:
            return None


class Launcher:
    """Thread-safe: each call works on one request, and has been given the token of its call (`slots.Slots`)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._backoff = Backoff(parts.config.retry_base_seconds, parts.config.retry_cap_seconds)

    def take(self, delivery: Delivery) -> bool:
        """A message: store its request if it is new, claim and launch it. False: not dealt with, do not acknowledge."""
        parts = self._parts
        try:
            request = envelope.decode_request(delivery.body, parts.keyring)
        except UndecodableMessage as error:
            self.bury(delivery.queue, delivery.body, str(error))
            return True
        if request.queue != delivery.queue:
            # Whoever may write to one queue must not get at another one's profile.
            self.bury(delivery.queue, delivery.body, f"it names the queue {request.queue}")
            return True
        parts.telemetry.emit("request.received", id=request.id, queue=request.queue)
        nonce = envelope.nonce_of(parts.config.namespace, delivery.body)
        draft = draft_of(parts, request, nonce, 1)
        if draft is None:
            return False
        submission = submission_of(request, delivery.body, nonce, parts.config.launch_deadline)
        offer = draft.offer(parts)
        deadline = self._deadline()
        stored, claimed = parts.ledger.admit(submission, offer)
        reach("launch.admitted")
        if stored.word is Word.CREATED:  # a producer of another kind, which keeps no journal
            tell_submitted(parts.telemetry, parts.config.namespace, submission)
        step = self._step("put", request.id, stored.word)
        if step is Step.BURY:
            parts.run_quota.give_back(draft.target)
            self.bury(delivery.queue, delivery.body, f"another request has the id {request.id}")
            return True
        if step is Step.TOO_LATE:
            parts.run_quota.give_back(draft.target)
            self.bury(delivery.queue, delivery.body, "it arrived after its accept_until")
            parts.publish(too_late(request, nonce))
            return True
        if step is Step.END and stored.record is not None:
            self._ended(stored.record)
        self._claimed(request.id, claimed, draft, offer, deadline)
        return True

    def retry(self, record: Record) -> None:
        """A QUEUED record that is due: its delayed retry, or its message was lost."""
        parts = self._parts
        if parts.rest(0.0):
            return  # the worker stops: it comes due again when the lease is over
        try:
            request = parts.trust.request(record)
        except _CANNOT_BE_USED as error:
            self._put_aside(record, error)
            return
        draft = draft_of(parts, request, record.nonce, record.launch)
        if draft is None:
            return
        offer = draft.offer(parts)
        deadline = self._deadline()
        answer = parts.ledger.claim(record.id, offer)
        reach("launch.claimed")
        self._claimed(record.id, answer, draft, offer, deadline)

    def expire(self, record_id: str) -> None:
        """End a QUEUED record whose deadline has passed."""
        answer = self._parts.ledger.claim(record_id, None)
        reach("launch.expired")
        if self._step("claim", record_id, answer.word) is Step.END and answer.record is not None:
            self._ended(answer.record)

    def recover(self, record: Record, quota: Quota) -> None:
        """A LAUNCHING record whose lease is over: its worker died or is in doubt. Call again, or look.

        `quota`: whose token is here; which one is needed shows only in the ledger's answer.
        """
        parts = self._parts
        target = Target.decode(parts.trust.target_text(record))
        if parts.rest(0.0):
            return  # the worker stops: it comes due again when the lease is over
        offer = ClaimOffer(claim=parts.new_id(), worker=parts.worker, args="", target="")
        deadline = self._deadline()
        answer = parts.ledger.reclaim(record.id, offer)
        reach("launch.reclaimed")
        step = self._step("reclaim", record.id, answer.word)
        if answer.record is None or step is Step.LEAVE:
            quota.give_back(target)
            return
        if step is Step.LOOK:
            self._swap(quota, parts.read_quota, target)
            self._look(answer.record, target)
        elif not answer.record.args:
            self._refuse(answer.record, "the run_task arguments could not be built")
        else:
            self._swap(quota, parts.run_quota, target)
            self._call_again(answer.record, target, deadline)

    def _swap(self, given: Quota, needed: Quota, target: Target) -> None:
        if given is not needed:
            given.give_back(target)
            needed.charge(target)

    def bury(self, queue: str, body: bytes, reason: str) -> None:
        """Keep a message that cannot be used as a dead letter."""
        parts = self._parts
        parts.ledger.bury(DeadLetter(key=parts.new_id(), queue=queue, reason=reason, body=body))
        reach("launch.buried")
        parts.telemetry.emit("request.dead", queue=queue, reason=reason, bytes=len(body))

    def _call_again(self, record: Record, target: Target, deadline: float) -> None:
        """With the frozen arguments. What is not signed is burnt: then nobody calls, and all only look for its task."""
        try:
            request, plan = self._parts.trust.request(record), self._parts.trust.plan(record)
        except _CANNOT_BE_USED as error:
            self._parts.run_quota.give_back(target)
            self._give_up(record, error)
        else:
            self._call(record, plan, target, request, deadline)

    def _put_aside(self, record: Record, error: UndecodableMessage) -> None:
        """A QUEUED record that must not be launched, or not by this worker."""
        offer = ClaimOffer(claim=self._parts.new_id(), worker=self._parts.worker, args="", target="")
        answer = self._parts.ledger.claim(record.id, offer)
        reach("launch.put_aside")
        if self._step("claim", record.id, answer.word) is Step.CALL and answer.record is not None:
            self._give_up(answer.record, error)
        else:
            self._written(record, answer)

    def _give_up(self, record: Record, error: UndecodableMessage) -> None:
        """The claim is ours, nothing was sent. What another worker may be able to read waits for it."""
        if not isinstance(error, SealedMessage):
            self._refuse(record, f"not launched: {error}")
            return
        reason = str(error)
        self._parts.telemetry.emit("launch.no_effect", id=record.id, launch=record.launch, reason=reason)
        wait = _UNTIL_SOMEBODY_CAN_READ_IT
        answer = self._parts.ledger.no_effect(record.id, record.claim, wait, reason)
        reach("launch.given_up")
        self._written(record, answer)

    def _deadline(self) -> float:
        """RunTask must not be sent later: counted from before the claim, for a lease cannot fence ECS."""
        return self._parts.monotonic() + self._parts.config.call_budget_seconds

    def _claimed(self, id: str, answer: Answer, draft: Draft, offer: ClaimOffer, deadline: float) -> None:
        record = answer.record
        step = self._step("claim", id, answer.word)
        if step is not Step.CALL or record is None:
            self._parts.run_quota.give_back(draft.target)
            if step is Step.END and record is not None:
                self._ended(record)
            elif answer.word in (Word.FULL, Word.PAUSED):
                self._parts.gates.refused(draft.request.queue)
            return
        if not record.args:
            self._refuse(record, draft.refusal or "the run_task arguments could not be built")
            return
        # What an earlier claim of the same launch number froze counts, not what this worker would send.
        frozen = record.args != offer.args or record.target != offer.target
        try:
            plan = self._parts.trust.plan(record) if frozen or draft.plan is None else draft.plan
        except _CANNOT_BE_USED as error:
            self._parts.run_quota.give_back(draft.target)
            self._give_up(record, error)
            return
        target = Target.decode(record.target) if frozen else draft.target
        self._call(record, plan, target, draft.request, deadline)

    def _call(self, record: Record, plan: Plan, target: Target, request: TaskRequest, deadline: float) -> None:
        parts = self._parts
        told = {"id": record.id, "launch": record.launch}
        parts.telemetry.emit("launch.called", **told, attempt=record.attempt, plan=record.args, target=record.target)
        reach("launch.calling")
        answer = parts.gateway.run_task(
            target,
            plan.run_task,
            client_token=client_token_of(record.id, record.nonce, record.launch),
            started_by=startedby_of(parts.config.namespace, record.id, record.nonce, record.launch),
            deadline=deadline,
        )
        reach("launch.answered")
        if answer.kind is Kind.THROTTLED:
            parts.run_quota.throttled(target)
        draw = Draw(parts.rng)
        decision = after_call(answer, record, self._backoff, draw)
        inputs = {"record": record, "answer": answer, "backoff": self._backoff, "draw": draw.value}
        parts.telemetry.emit("decision.call", **told, write=decision.write.value, **inputs, took=decision)
        if decision.write is Write.ASK:
            decision = self._ask(record, target, answer, decision)
        if decision.write is Write.LAUNCHED and decision.arn:
            self._launched(record, target, request, decision.arn)
        else:
            self._not_launched(record, plan, decision)
        if decision.opens_circuit:
            parts.circuits.open(record.queue, decision.reason)
        elif decision.write in (Write.LAUNCHED, Write.REFUSED):
            parts.circuits.close(record.queue)

    def _launched(self, record: Record, target: Target, request: TaskRequest | None, arn: str) -> None:
        parts = self._parts
        # In flight first: the tracker may look at it the moment the ledger knows it.
        if request is not None:
            parts.in_flight.add(arn, queued_task(request, record.attempt, record.not_before))
        wait = parts.pace.first_look(record, arn)
        answer = parts.ledger.launched(record.id, record.nonce, record.launch, arn, wait)
        reach("launch.launched")
        if self._step("launched", record.id, answer.word) is Step.STOP:
            parts.in_flight.drop(record.id)
            parts.telemetry.emit("launch.stray", id=record.id, launch=record.launch, arn=arn)
            parts.stop_quota.charge(target)
            reach("launch.stray")
            parts.gateway.stop_task(target, arn, "ecs-queue: this launch is not wanted any more")
            return
        parts.telemetry.emit("launch.started", id=record.id, launch=record.launch, arn=arn)

    def _not_launched(self, record: Record, plan: Plan, decision: AfterCall) -> None:
        parts = self._parts
        told = {"id": record.id, "launch": record.launch, "reason": decision.reason}
        if decision.write is Write.NO_EFFECT:
            parts.telemetry.emit("launch.no_effect", **told)
            answer = parts.ledger.no_effect(record.id, record.claim, decision.wait, decision.reason)
            reach("launch.no_effect")
        elif decision.write is Write.UNSURE:
            parts.telemetry.emit("launch.unsure", **told)
            answer = parts.ledger.unsure(record.id, record.claim, decision.wait, decision.reason, decision.answered)
            reach("launch.unsure")
        else:
            parts.telemetry.emit("launch.refused", kind=decision.refusal.value, **told)
            refusal = Refusal(
                kind=decision.refusal, reason=decision.reason, wait=decision.wait, max_attempts=plan.max_attempts
            )
            answer = parts.ledger.refused(record.id, record.claim, refusal)
            reach("launch.refused")
        self._written(record, answer)

    def _ask(self, record: Record, target: Target, answer: RunAnswer, asked: AfterCall) -> AfterCall:
        """ConflictException: adopt the task it names only when its startedBy is ours."""
        parts = self._parts
        wanted = startedby_of(parts.config.namespace, record.id, record.nonce, record.launch)
        parts.read_quota.charge(target)
        shown = parts.gateway.describe_tasks(target, answer.conflicting[:100]).tasks
        reach("launch.asked")
        decision = after_conflict(asked, wanted, answer.conflicting, shown)
        inputs = {"asked": asked, "wanted": wanted, "conflicting": answer.conflicting, "shown": shown}
        told = {"id": record.id, "launch": record.launch, "write": decision.write.value}
        parts.telemetry.emit("decision.conflict", **told, **inputs, took=decision)
        return decision

    def _look(self, record: Record, target: Target) -> None:
        """LOOK: what ListTasks shows exists; what it does not show is proof only after H."""
        parts = self._parts
        parts.read_quota.charge(target)  # the second call: RUNNING, then STOPPED
        listed = parts.gateway.list_tasks(
            target, startedby_of(parts.config.namespace, record.id, record.nonce, record.launch)
        )
        reach("launch.looked")
        if listed.trouble is not None and listed.trouble.kind is TroubleKind.THROTTLED:
            parts.read_quota.throttled(target)
        is_gone = listed.trouble is not None and listed.trouble.kind is TroubleKind.GONE
        age = parts.ledger.now() - record.first_called_at if is_gone else 0.0
        inputs = {"listed": listed, "age": age, "again": self._look_again()}
        decision = after_list(**inputs)  # type: ignore[arg-type]
        told = {"id": record.id, "launch": record.launch}
        parts.telemetry.emit("decision.list", **told, write=decision.write.value, **inputs, took=decision)
        if decision.write is Write.LAUNCHED:
            parts.telemetry.emit("launch.found", **told, arn=decision.arn)
            self._launched(record, target, parts.trust.readable(record), decision.arn)
        elif decision.write is Write.UNSURE:
            parts.telemetry.emit("launch.unsure", **told, reason=decision.reason)
            answer = parts.ledger.unsure(record.id, record.claim, decision.wait, decision.reason)
            reach("launch.look_failed")
            self._written(record, answer)
        else:
            answer = parts.ledger.none(record.id, record.claim, decision.wait)
            reach("launch.none")
            parts.telemetry.emit("launch.looked", **told, word=answer.word.value)
            self._written(record, answer)

    def _look_again(self) -> float:
        return min(_LOOK_AGAIN, max(1.0, self._parts.config.settle_seconds / 10))

    def _refuse(self, record: Record, reason: str) -> None:
        """Nothing was sent and nothing ever can be."""
        refusal = Refusal(kind=RefusalKind.PERMANENT, reason=reason, wait=self._backoff.base, max_attempts=1)
        self._parts.telemetry.emit(
            "launch.refused", id=record.id, launch=record.launch, kind=refusal.kind.value, reason=reason
        )
        answer = self._parts.ledger.refused(record.id, record.claim, refusal)
        reach("launch.impossible")
        self._written(record, answer)

    def _written(self, record: Record, answer: Answer) -> None:
        step = self._step("write", record.id, answer.word)
        if step is Step.LOST:
            self._parts.telemetry.emit("launch.lost_claim", id=record.id, launch=record.launch)
        elif step is Step.END and answer.record is not None:
            self._ended(answer.record)

    def _step(self, operation: str, id: str, word: Word) -> Step:
        """What to do after a word of the ledger; told."""
        step = next_step(operation, word)
        self._parts.telemetry.emit("decision.step", id=id, operation=operation, word=word.value, step=step.value)
        return step

    def _ended(self, record: Record) -> None:
        tell_end(self._parts.telemetry, record)
        self._parts.publish(record)
