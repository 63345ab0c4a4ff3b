"""Patches that disable one rule of the protocol each. The simulation must find a violation with every one of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec

from ecs_queue.broker.base import Delivery
from ecs_queue.client.results import ResultReader
from ecs_queue.config import Config
from ecs_queue.ecs import gateway
from ecs_queue.ledger import memory, memory_keys
from ecs_queue.ledger.memory_keys import MemoryKeys
from ecs_queue.protocol import decisions, observation, record_moves, repeated_calls, retry_rules
from ecs_queue.protocol.capacity_fallback import CapacityReport, CapacityState
from ecs_queue.protocol.concurrency_keys import KeyRoom
from ecs_queue.protocol.decisions import LedgerWrite, build_lost_update, decide_call
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.operations import RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.record import STOPPED_BY_START_TIMEOUT, Record, Submission, build_client_token
from ecs_queue.protocol.record_moves import is_start_overdue
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.state_machine import claims, client_operations, launch_reports, task_updates
from ecs_queue.protocol.states import State
from ecs_queue.protocol.task_order import compare_observations
from ecs_queue.runtask.launch_spec import LaunchSpec
from ecs_queue.worker import launch_calls
from ecs_queue.worker.consumer import Consumer
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.rate_limiter import RateLimit
from ecs_queue.worker.record_verification import RecordVerifier
from ecs_queue.worker.sweeper import Sweeper
from tests.simulation import ledger as simulated_ledger
from tests.simulation.faults import SimFaults
from tests.simulation.policies import SimPolicies

#: (object, name of its attribute, replacement)
Patch = tuple[Any, str, Any]


def new_token_for_every_call() -> list[Patch]:
    """ECS cannot know a repeated call as the same call."""
    numbers = itertools.count()
    original = build_client_token
    return [(launch_calls, "build_client_token", lambda *parts: f"{original(*parts)}.{next(numbers)}")]


def ack_before_arn_is_stored() -> list[Patch]:
    """The message is acknowledged before the launch is known, and no worker reclaims LAUNCHING records."""

    def handle(self: Consumer, delivery: Delivery) -> None:
        delivery.ack()
        self._launcher.handle_message(delivery)

    return [(Consumer, "_handle", handle), (Poller, "_submit_recoveries", lambda self, records: None)]


def no_sweeper() -> list[Patch]:
    """No worker finds a request whose message was lost."""
    return [(Sweeper, "step", lambda self: 0.5)]


def no_result_deduplication() -> list[Patch]:
    """The owner does not deduplicate."""

    def finish(self: ResultReader, key: tuple[str, str], outcome: Any) -> bool:
        handles = self._handles(key)
        for handle in handles:
            if not handle.done():
                handle.set_result(outcome)
        for waiter in self._waiters.get(key, ()) if handles else ():
            waiter.add(handles[0])
        return bool(handles)

    return [(ResultReader, "_finish", finish)]


def stale_claim_accepted() -> list[Patch]:
    """A worker whose claim was reclaimed may still write its result."""
    return [(launch_reports, "_has_claim", lambda record, token: record.state is State.LAUNCHING)]


def ambiguous_call_taken_for_no_effect() -> list[Patch]:
    """A call that timed out counts as never made."""

    def decide(*arguments: Any) -> Any:
        decision = decide_call(*arguments)
        if decision.write is LedgerWrite.CALL_AMBIGUOUS:
            return msgspec.structs.replace(decision, write=LedgerWrite.NO_EFFECT)
        return decision

    return [(launch_calls, "decide_call", decide)]


def empty_list_believed_at_once() -> list[Patch]:
    """What ListTasks does not show (yet) counts as never started."""

    def at_once(record: Record, rules: ProtocolSettings) -> float:
        return record.last_claim_at

    return [(launch_reports, "absence_provable_at", at_once)]


def no_send_deadline() -> list[Patch]:
    """A worker that was frozen sends its freshly signed call whenever it wakes."""

    def send(self: Any, **_kwargs: object) -> None:
        self._call.sent = True

    return [(gateway._SendGuard, "_before_send", send)]


def reclaim_leaves_call_unambiguous() -> list[Patch]:
    """The refusal of a second call is believed while the first call may still take effect."""
    original = claims.reclaim

    def reclaim(record: Record, *arguments: Any) -> ResultCode:
        was_ambiguous = record.ambiguous
        code = original(record, *arguments)
        record.ambiguous = was_ambiguous
        return code

    return [(claims, "reclaim", reclaim)]


def no_lease() -> list[Patch]:
    """A claim excludes no other worker: it is reclaimed while its holder works, and without becoming ambiguous."""
    original = ProtocolSettings.from_config

    def from_config(config: Config) -> ProtocolSettings:
        return msgspec.structs.replace(original(config), lease_seconds=0.001)

    return [(ProtocolSettings, "from_config", staticmethod(from_config)), *reclaim_leaves_call_unambiguous()]


def stop_ends_ambiguous_launch() -> list[Patch]:
    """A stop moves LAUNCHING to REVOKED without listing tasks."""
    original = client_operations.stop

    def stop(record: Record, by: str, launch: int, now: float) -> ResultCode:
        code = original(record, by, launch, now)
        if code is ResultCode.STOP_REQUESTED and record.state is State.LAUNCHING:
            record_moves.finish(record, State.REVOKED, record.attempt, now, "stopped")
            return ResultCode.ENDED
        return code

    return [(client_operations, "stop", stop)]


def no_accept_deadline() -> list[Patch]:
    """A late duplicate makes a new record of a request that was forgotten."""
    original = client_operations.put

    def put(record: Record | None, new: Submission, now: float) -> Any:
        code, created = original(record, msgspec.structs.replace(new, accept_until=now + 1e6), now)
        if created is not None and code is ResultCode.CREATED:
            created.accept_until = new.accept_until
        return code, created

    return [(client_operations, "put", put)]


def no_token_expiry() -> list[Patch]:
    """An ambiguous launch is called again after an hour, when ECS has forgotten the client token of a short task."""
    return [(claims, "LIST_ONLY_AFTER", float("inf")), (launch_reports, "ABSENCE_UNPROVABLE_AFTER", float("inf"))]


def missing_task_taken_for_lost() -> list[Patch]:
    """A task that DescribeTasks does not show (yet) counts as lost."""
    return [(Poller, "_handle_missing", lambda self, record, why, now: build_lost_update(record, "not shown"))]


def relaunch_policy_ignored() -> list[Patch]:
    """The request's relaunch policy is not checked."""
    return [(decisions, "may_relaunch", lambda policy, observation: True)]


def equal_version_taken_for_nothing_new() -> list[Patch]:
    """Only a higher version is news, where a task has one at all."""

    def compare(version: int, status: str, known_version: int, known_status: str) -> int:
        if version and known_version:
            return version - known_version
        return compare_observations(version, status, known_version, known_status)

    def update_task(record: Record, update: TaskUpdate, now: float) -> ResultCode:
        stale = update.version and update.version <= record.version
        return ResultCode.STALE if stale else original(record, update, now)

    original = task_updates.update_task
    return [(decisions, "compare_observations", compare), (task_updates, "update_task", update_task)]


def capacity_failure_costs_attempt() -> list[Patch]:
    """Lack of capacity counts as a failed attempt."""
    costs = {**decisions._REFUSAL_KINDS, RefusalKind.CAPACITY.value: RefusalKind.START_FAILURE}
    return [(decisions, "_REFUSAL_KINDS", costs)]


def capacity_stop_costs_attempt() -> list[Patch]:
    """A task that never started for lack of capacity counts as a failed attempt."""
    return [(decisions, "waits_for_capacity", lambda observation: False)]


def denial_fails_request() -> list[Patch]:
    """A worker that may not call RunTask fails the request."""
    permanent = RunTaskResultKind.PERMANENT

    def find_kind(result: RunTaskResult, *arguments: Any) -> RunTaskResultKind:
        return permanent if result.kind is RunTaskResultKind.UNUSABLE_PROFILE else result.kind

    return [(decisions, "_find_result_kind", find_kind)]


def wrong_target_is_kept() -> list[Patch]:
    """A launch that a wrong profile prevented keeps its target when the profile is mended."""

    def decide(*arguments: Any) -> Any:
        decision = decide_call(*arguments)
        is_given_back = decision.write is LedgerWrite.REFUSED and decision.refusal_kind is RefusalKind.GIVEN_BACK
        return msgspec.structs.replace(decision, write=LedgerWrite.NO_EFFECT) if is_given_back else decision

    return [(launch_calls, "decide_call", decide)]


def running_list_believed() -> list[Patch]:
    """Where startedBy must be the only filter, the list of RUNNING tasks is taken for the whole."""
    return [(gateway.BotoEcsGateway, "_list_stopped_of_family", lambda *arguments: None)]


def no_barrier_after_claim() -> list[Patch]:
    """ECS is called although a fail-over of the ledger may still lose the claim."""
    return [(simulated_ledger, "_BARRIER_OPERATIONS", frozenset())]


def nothing_written_before_barrier() -> list[Patch]:
    """An operation that finds its work done reports it, although another connection's write is not durable yet."""
    return [(simulated_ledger, "_WRITES_BEFORE_BARRIER", False)]


def claim_token_not_recognized() -> list[Patch]:
    """A repeated call under the same claim token is taken for another worker's."""
    return [
        (repeated_calls, "find_answer", lambda record, operation, token: None),
        (memory, "find_answer", lambda record, operation, token: None),
    ]


def pause_and_limits_ignored() -> list[Patch]:
    """Workers claim without checking the queue's pause and limits in the ledger."""
    return [(claims, "_find_claim_obstacle", lambda claim_request, settings, counts: None)]


def max_starting_ignored() -> list[Patch]:
    """Workers claim without checking in the ledger how many tasks start."""
    return [(claims, "_is_start_limit_reached", lambda claim_request, counts: False)]


def start_slot_freed_too_early() -> list[Patch]:
    """Only a call holds a slot, not the task that it has started."""
    return [(memory, "is_starting", lambda record: record.state is State.LAUNCHING)]


def key_limit_ignored() -> list[Patch]:
    """A claim does not look how many requests of the key are in flight."""
    return [(KeyRoom, "is_full", False)]


def key_slot_freed_too_early() -> list[Patch]:
    """Only a call holds a slot of a key, not the task that it has started."""
    return [(memory_keys, "holds_key_slot", lambda record: record.state is State.LAUNCHING)]


def key_slot_freed_without_waking() -> list[Patch]:
    """What leaves its slot wakes none of those that wait for it."""
    return [(MemoryKeys, "_follow_key", lambda self, record, had_slot, had_turn, now: None)]


def turn_for_a_key_not_handed_on() -> list[Patch]:
    """A request that ends when it is its turn wakes none of those behind it."""
    original = MemoryKeys._follow_key

    def follow_key(self: MemoryKeys, record: Record, had_slot: bool, had_turn: bool, now: float) -> None:
        original(self, record, had_slot, had_turn and not record.is_terminal, now)

    return [(MemoryKeys, "_follow_key", follow_key)]


def order_within_a_key_ignored() -> list[Patch]:
    """Whichever request comes first takes a free slot."""
    return [(KeyRoom, "is_full", property(lambda self: self.free <= 0))]


def launch_rate_ignored() -> list[Patch]:
    """A launch needs no token of its queue."""

    def rate_limit_for(self: WorkerContext, queue: str) -> RateLimit | None:
        return self.launch_limiter(queue).limit_for(self.target_for(queue))

    return [(WorkerContext, "rate_limit_for", rate_limit_for)]


def delay_ignored() -> list[Patch]:
    """A claim does not look whether the request's time has come."""
    original = claims.claim

    def claim(record: Record, *arguments: Any) -> ResultCode:
        delayed_until = record.delayed_until
        if record.launch == 1 and not record.calls:
            record.not_before = record.delayed_until = 0.0
        code = original(record, *arguments)
        record.delayed_until = delayed_until
        return code

    return [(claims, "claim", claim)]


def retry_rules_ignored() -> list[Patch]:
    """Only the relaunch policy decides about failed attempts, as in a worker that does not know rules."""
    return [(retry_rules, "decode_retry_rules", lambda text: ())]


def first_retry_rule_decides() -> list[Patch]:
    """The first rule is taken, whether it matches or not."""
    return [(retry_rules, "_matches", lambda rule, attempt: True)]


def uncounted_retry_costs_attempt() -> list[Patch]:
    """A retry that is not to use an attempt uses one."""
    original = retry_rules.rule_on

    def rule_on(*arguments: Any) -> retry_rules.Ruling:
        return msgspec.structs.replace(original(*arguments), counts_attempt=True)

    return [(decisions, "rule_on", rule_on)]


def start_timeout_taken_for_a_stop() -> list[Patch]:
    """A task that its start timeout has stopped counts as stopped by a user, for good."""
    return [(observation, "_has_start_timed_out", lambda task: False)]


def start_timeout_stops_what_runs() -> list[Patch]:
    """A start timeout does not look whether the task has started."""
    original = decisions.find_stop_cause

    def find_stop_cause(record: Record, found: observation.Observation, now: float) -> str:
        is_over = not found.has_ended and found.desired_status != "STOPPED" and is_start_overdue(record, now)
        return original(record, found, now) or (STOPPED_BY_START_TIMEOUT if is_over else "")

    return [(decisions, "find_stop_cause", find_stop_cause)]


def what_another_variant_does_counts() -> list[Patch]:
    """A refusal or an interruption counts against the present variant, whichever one the launch was on."""
    original = CapacityState.note

    def note(self: CapacityState, report: CapacityReport, now: float) -> None:
        original(self, msgspec.structs.replace(report, variant=self.variant), now)

    return [(CapacityState, "note", note)]


def variant_chosen_anew_for_a_repeated_call() -> list[Patch]:
    """A call that is repeated after an unknown answer goes to the other capacity, under the same token."""
    original = RecordVerifier.decode_launch_spec

    def decode(self: RecordVerifier, record: Record) -> LaunchSpec:
        spec = original(self, record)
        if "launchType" not in spec.run_task:
            return spec
        other = "FARGATE" if spec.run_task["launchType"] == "EC2" else "EC2"
        return msgspec.structs.replace(spec, run_task={**spec.run_task, "launchType": other})

    return [(RecordVerifier, "decode_launch_spec", decode)]


class ProtocolRule(NamedTuple):
    """A rule, the patches that `disable` it, and a regular expression that finds the `expected_violation`.

    `faults` and `policies` are those under which the rule matters; None means those that each seed draws.
    """

    disable: Callable[[], list[Patch]]
    expected_violation: str
    faults: SimFaults | None = None
    policies: SimPolicies | None = None


_LOST_CALLS = SimFaults(
    run_task_lost_before_effect=0.1, run_task_lost_after_effect=0.3, run_task_late=0.3, capacity=0.2, invisible=0.3
)
_DELAYED_CALLS = SimFaults(
    freeze_around_run_task=0.2,
    capacity=0.4,
    start_refused=0.2,
    throttle=0.2,
    run_task_lost_after_effect=0.3,
    run_task_lost_before_effect=0.1,
)
_KEYS = SimPolicies(max_per_key=1, keys=("k",))
_NOT_FINISHED = "not over after"
_UNWANTED_TASK = (
    "is started while its record is|two tasks alive for one request|QUEUED .*has a task|QUEUED while its task is alive"
    "|one launch number|started a task, and no attempt was consumed"
)

PROTOCOL_RULES: Mapping[str, ProtocolRule] = {
    rule.disable.__name__: rule
    for rule in (
        ProtocolRule(new_token_for_every_call, "two ECS tasks for one launch number"),
        ProtocolRule(ack_before_arn_is_stored, _NOT_FINISHED),
        ProtocolRule(no_sweeper, _NOT_FINISHED),
        ProtocolRule(no_result_deduplication, "was given the result of .* twice"),
        ProtocolRule(stale_claim_accepted, _UNWANTED_TASK, replace(_DELAYED_CALLS, never_starts=0.7)),
        ProtocolRule(ambiguous_call_taken_for_no_effect, _UNWANTED_TASK),
        ProtocolRule(
            empty_list_believed_at_once,
            f"{_UNWANTED_TASK}|ended REVOKED while its task is alive",
            replace(_LOST_CALLS, kill=0.01),
        ),
        ProtocolRule(
            no_send_deadline,
            _UNWANTED_TASK,
            SimFaults(freeze_around_run_task=0.25, capacity=0.5, start_refused=0.1, throttle=0.1),
        ),
        ProtocolRule(reclaim_leaves_call_unambiguous, _UNWANTED_TASK, _DELAYED_CALLS),
        ProtocolRule(no_lease, _UNWANTED_TASK, _DELAYED_CALLS),
        ProtocolRule(
            stop_ends_ambiguous_launch,
            "ended REVOKED while its task is alive|is started while its record is REVOKED",
            _LOST_CALLS,
        ),
        ProtocolRule(
            no_accept_deadline,
            "ended and begins again|the terminal record .* moved",
            SimFaults(delay=0.5, double=0.5),
        ),
        ProtocolRule(
            no_token_expiry,
            "two ECS tasks|started a task, and no attempt was consumed",
            replace(_LOST_CALLS, lasting_outage=1.0),
        ),
        ProtocolRule(missing_task_taken_for_lost, "ended UNKNOWN while its task is alive", _LOST_CALLS),
        ProtocolRule(relaunch_policy_ignored, "although relaunch=", SimFaults(exits_1=0.5)),
        ProtocolRule(capacity_failure_costs_attempt, "consumed an attempt, but nothing", _LOST_CALLS),
        ProtocolRule(equal_version_taken_for_nothing_new, _NOT_FINISHED),
        ProtocolRule(capacity_stop_costs_attempt, "consumed an attempt, but nothing", SimFaults(capacity_stop=0.5)),
        ProtocolRule(delay_ignored, "is started before its time", SimFaults(), SimPolicies(delays=(60.0,))),
        ProtocolRule(launch_rate_ignored, "with it .* in", SimFaults(), SimPolicies(launch_rate=0.02)),
        ProtocolRule(max_starting_ignored, "with it .* start$", SimFaults(), SimPolicies(max_starting=1)),
        ProtocolRule(start_slot_freed_too_early, "with it .* start$", SimFaults(), SimPolicies(max_starting=1)),
        ProtocolRule(key_limit_ignored, "of its key are in flight", SimFaults(), _KEYS),
        ProtocolRule(key_slot_freed_too_early, "of its key are in flight", SimFaults(), _KEYS),
        ProtocolRule(key_slot_freed_without_waking, "wait for the key k, which is free", SimFaults(), _KEYS),
        ProtocolRule(
            turn_for_a_key_not_handed_on,
            "wait for the key k, which is free",
            SimFaults(ledger_lost_before_effect=0.4),
            _KEYS,
        ),
        ProtocolRule(order_within_a_key_ignored, "which wait for its key", SimFaults(drop=0.3), _KEYS),
        ProtocolRule(
            retry_rules_ignored,
            "started a task, and no attempt|consumed an attempt, but nothing",
            SimFaults(interrupted=0.5),
            SimPolicies(has_retry_rules=True),
        ),
        ProtocolRule(
            first_retry_rule_decides, "although relaunch=|consumed an attempt", None, SimPolicies(has_retry_rules=True)
        ),
        ProtocolRule(
            uncounted_retry_costs_attempt,
            "consumed an attempt, but nothing",
            SimFaults(interrupted=0.5),
            SimPolicies(has_retry_rules=True),
        ),
        ProtocolRule(
            start_timeout_taken_for_a_stop,
            "ended REMOVED .* which is not what happened",
            SimFaults(),
            SimPolicies(start_timeout=30.0, stays_pending=0.3),
        ),
        ProtocolRule(
            start_timeout_stops_what_runs,
            "had run for long|although relaunch=",
            SimFaults(runs_long=0.9),
            SimPolicies(start_timeout=140.0),
        ),
        ProtocolRule(
            what_another_variant_does_counts,
            "has left variant 2, which ECS never refused",
            SimFaults(capacity=0.3, interrupted=0.5),
            SimPolicies(has_capacity_fallback=True),
        ),
        ProtocolRule(
            variant_chosen_anew_for_a_repeated_call,
            "is started on .*, and its record says variant|which is not what happened",
            _LOST_CALLS,
            SimPolicies(has_capacity_fallback=True),
        ),
        ProtocolRule(denial_fails_request, "ended FAILED", SimFaults(denied=0.3)),
        ProtocolRule(wrong_target_is_kept, f"{_NOT_FINISHED}|kept the target", SimFaults(wrong_profile=0.5)),
        ProtocolRule(
            running_list_believed,
            f"{_UNWANTED_TASK}|although relaunch=|which is not what happened",
            replace(_LOST_CALLS, kill=0.01, lasting_outage=1.0),
        ),
        ProtocolRule(pause_and_limits_ignored, "while its queue is paused|are in flight", SimFaults()),
        ProtocolRule(
            nothing_written_before_barrier,
            "confirmed stop of .* is forgotten",
            SimFaults(fail_over=0.3, barrier_unconfirmed=0.9),
        ),
        ProtocolRule(claim_token_not_recognized, "under one token was answered", SimFaults(ledger_repeated=0.2)),
        ProtocolRule(
            no_barrier_after_claim, f"{_UNWANTED_TASK}|that no record knows|{_NOT_FINISHED}", SimFaults(fail_over=0.3)
        ),
    )
}


@contextmanager
def disable_rule(rule: str) -> Iterator[None]:
    """Disable the rule of that name within the context."""
    changes = PROTOCOL_RULES[rule].disable()
    patches = [patch.object(where, name, what) for where, name, what in changes]
    try:
        for each in patches:
            each.start()
        yield
    finally:
        for each in patches:
            each.stop()
