"""Takes one request from QUEUED to LAUNCHED, or as far as ECS lets it.

Every step is written so that the process may die before or after it: the claim is in the ledger before RunTask is
sent, the ARN is in the ledger before the message is acknowledged, and what is in doubt is settled by whoever comes
next (PROTOCOL.md).
"""

from __future__ import annotations

from ecs_queue.broker.base import Delivery
from ecs_queue.core import envelope
from ecs_queue.core.answers import Kind, RunAnswer, TroubleKind
from ecs_queue.core.decide import FOR_GOOD, AfterCall, Step, Write, after_call, after_conflict, after_list
from ecs_queue.core.envelope import TaskRequest
from ecs_queue.core.lifecycle import PROOF_ENDS_AFTER
from ecs_queue.core.plan import Plan, queued_task, submission_of
from ecs_queue.core.protocol import Answer, ClaimOffer, Refusal, Word
from ecs_queue.core.record import Record, client_token_of, startedby_of
from ecs_queue.core.retry import Backoff, Draw
from ecs_queue.core.states import State
from ecs_queue.crashpoints import reach
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import PermanentError, UndecodableMessage
from ecs_queue.launcher.draft import Draft, draft_of, read
from ecs_queue.launcher.ends import Ends, tell_step, too_late
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.quota import Quota
from ecs_queue.telemetry import tell_submitted

#: The most seconds between looks for a task of a launch in doubt.
_LOOK_AGAIN = 30.0


class Launcher:
    """Thread-safe: each call works on one request, and has been given the token of its call (`slots.Slots`)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._backoff = Backoff(parts.config.retry_base_seconds, parts.config.retry_cap_seconds)
        self._ends = Ends(parts, self._backoff.base)

    def take(self, delivery: Delivery) -> bool:
        """A message: store its request if it is new, claim and launch it. False: not dealt with, do not acknowledge."""
        parts = self._parts
        nonce = envelope.nonce_of(parts.config.namespace, delivery.body)
        if not delivery.redelivered:
            draft, dead = read(parts, delivery, nonce)
        else:
            with parts.suspects.in_hand(nonce) as harm:
                draft, dead = (None, harm) if harm else read(parts, delivery, nonce)
        if dead:
            self.bury(delivery.queue, delivery.body, dead)
            return True
        if draft is None:
            return False
        request = draft.request
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
            self._ends.ended(stored.record)
        self._claimed(request.id, claimed, draft, offer, deadline)
        return True

    def retry(self, record: Record) -> None:
        """A QUEUED record that is due: its delayed retry, or its message was lost."""
        parts = self._parts
        if parts.rest(0.0):
            return  # the worker stops: it comes due again when the lease is over
        with parts.suspects.in_hand(record.nonce) as harm:
            draft = None if harm else self._redraft(record)
        if harm:
            self._ends.give_up(record, harm)
            return
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
            self._ends.ended(answer.record)

    def recover(self, record: Record, quota: Quota) -> None:
        """A LAUNCHING record whose lease is over: its worker died or is in doubt. Call again, or look.

        `quota`: whose token is here; which one is needed shows only in the ledger's answer.
        """
        parts = self._parts
        try:
            target = Target.decode(parts.trust.target_text(record))
        except PermanentError as error:
            self._unreadable(record, str(error))
            return
        if parts.rest(0.0):
            return  # the worker stops: it comes due again when the lease is over
        offer = ClaimOffer(claim=parts.new_id(), worker=parts.worker, args="", target="")
        deadline = self._deadline()
        answer = parts.ledger.reclaim(record.id, offer)
        reach("launch.reclaimed")
        step = self._step("reclaim", record.id, answer.word)
        if answer.record is None or step not in (Step.CALL, Step.LOOK):
            quota.give_back(target)
            if step is Step.END and answer.record is not None:
                self._ends.ended(answer.record)
            return
        if step is Step.LOOK:
            self._swap(quota, parts.read_quota, target)
            self._look(answer.record, target)
        elif not answer.record.args:
            self._ends.refuse(answer.record, "the run_task arguments could not be built")
        else:
            self._swap(quota, parts.run_quota, target)
            self._call_frozen(answer.record, target, None, deadline)

    def _unreadable(self, record: Record, why: str) -> None:
        """A newer worker may know the target. Without one nobody can look: UNKNOWN when nothing would be proof."""
        ledger = self._parts.ledger
        self._parts.telemetry.emit("launch.unsure", id=record.id, launch=record.launch, reason=why)
        if ledger.now() - record.first_called_at <= PROOF_ENDS_AFTER:
            ledger.rest({record.id: _LOOK_AGAIN})
            return
        offer = ClaimOffer(claim=self._parts.new_id(), worker=self._parts.worker, args="", target="")
        answer = ledger.reclaim(record.id, offer)
        reach("launch.taken_unread")
        step = self._step("reclaim", record.id, answer.word)
        if step is Step.LOOK:
            answer = ledger.none(record.id, offer.claim, _LOOK_AGAIN, f"{why} {self._by_hand(record)}")
            reach("launch.unknown")
            self._ends.written(record, answer)
        elif step is Step.END and answer.record is not None:
            self._ends.ended(answer.record)

    def _swap(self, given: Quota, needed: Quota, target: Target) -> None:
        if given is not needed:
            given.give_back(target)
            needed.charge(target)

    def bury(self, queue: str, body: bytes, reason: str) -> None:
        """Keep a message that cannot be used as a dead letter."""
        self._ends.bury(queue, body, reason)

    def _redraft(self, record: Record) -> Draft | None:
        """The draft of a QUEUED record. None: not now, and its reason says why."""
        try:
            request = self._parts.trust.request(record)
        except UndecodableMessage as error:
            self._ends.put_aside(record, error)
            return None
        return draft_of(self._parts, request, record.nonce, record.launch)

    def _deadline(self) -> float:
        """RunTask must not be sent later: counted from before the claim, for a lease cannot fence ECS."""
        return self._parts.monotonic() + self._parts.config.call_budget_seconds

    def _claimed(self, id: str, answer: Answer, draft: Draft, offer: ClaimOffer, deadline: float) -> None:
        record = answer.record
        step = self._step("claim", id, answer.word)
        if step is not Step.CALL or record is None:
            self._parts.run_quota.give_back(draft.target)
            if step is Step.END and record is not None:
                self._ends.ended(record)
            elif answer.word in (Word.FULL, Word.PAUSED):
                self._parts.gates.refused(draft.request.queue)
            return
        if not record.args:
            self._ends.refuse(record, draft.refusal or "the run_task arguments could not be built")
            return
        # What an earlier claim of the same launch number froze counts, not what this worker would send.
        frozen = record.args != offer.args or record.target != offer.target
        if frozen or draft.plan is None:
            self._call_frozen(record, draft.target, draft.request, deadline)
        else:
            self._call(record, draft.plan, draft.target, draft.request, deadline)

    def _call_frozen(self, record: Record, charged: Target, request: TaskRequest | None, deadline: float) -> None:
        """Call with what the record says, when it is signed for this launch and can be read here.

        `charged`: whose token is here. `request`: None when it was not read yet; when only others can read it, too.
        """
        try:
            plan, target = self._parts.trust.plan(record), Target.decode(record.target)
            request = request or self._parts.trust.genuine(record)
        except PermanentError as error:
            self._parts.run_quota.give_back(charged)
            self._ends.refuse_or_leave(record, error)
            return
        self._call(record, plan, target, request, deadline)

    def _call(self, record: Record, plan: Plan, target: Target, request: TaskRequest | None, deadline: float) -> None:
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
        if request is not None:
            # In flight first: the tracker may look at it the moment the ledger knows it.
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
        self._ends.written(record, answer)

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
        elif listed.trouble is None:
            parts.circuits.no_trouble([record.queue], "ListTasks")
        is_lasting = listed.trouble is not None and listed.trouble.kind in FOR_GOOD
        age = parts.ledger.now() - record.first_called_at if is_lasting else 0.0
        inputs = {"listed": listed, "age": age, "again": self._look_again()}
        decision = after_list(**inputs)  # type: ignore[arg-type]
        told = {"id": record.id, "launch": record.launch}
        parts.telemetry.emit("decision.list", **told, write=decision.write.value, **inputs, took=decision)
        if decision.write is Write.LAUNCHED:
            parts.telemetry.emit("launch.found", **told, arn=decision.arn)
            self._launched(record, target, parts.trust.readable(record), decision.arn)
        elif decision.write is Write.UNSURE:
            if listed.trouble is not None:
                parts.circuits.trouble(record.queue, "ListTasks", listed.trouble)
            parts.telemetry.emit("launch.unsure", **told, reason=decision.reason)
            answer = parts.ledger.unsure(record.id, record.claim, decision.wait, decision.reason)
            reach("launch.look_failed")
            self._ends.written(record, answer)
        else:
            self._none(record, decision)

    def _none(self, record: Record, decision: AfterCall) -> None:
        why = f"{decision.reason} {self._by_hand(record)}".lstrip()
        answer = self._parts.ledger.none(record.id, record.claim, decision.wait, why)
        reach("launch.none")
        told = {"id": record.id, "launch": record.launch, "word": answer.word.value}
        self._parts.telemetry.emit("launch.looked", **told)
        if answer.record is not None and answer.record.state is State.FAILED:  # it broke its workers
            self.bury(record.queue, record.request, answer.record.reason)
        self._ends.written(record, answer)

    def _by_hand(self, record: Record) -> str:
        wanted = startedby_of(self._parts.config.namespace, record.id, record.nonce, record.launch)
        return f"look by hand for a task with startedBy {wanted}"

    def _look_again(self) -> float:
        return min(_LOOK_AGAIN, max(1.0, self._parts.config.settle_seconds / 10))

    def _step(self, operation: str, id: str, word: Word) -> Step:
        return tell_step(self._parts.telemetry, operation, id, word)
