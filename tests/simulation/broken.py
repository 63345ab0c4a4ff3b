"""Each guard of the protocol, broken: what the simulation must notice. The product itself is not changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec

from ecs_queue.broker.base import Delivery
from ecs_queue.config import Config
from ecs_queue.core import decide, lifecycle
from ecs_queue.core.answers import Kind
from ecs_queue.core.decide import Write, after_call, lost_outcome
from ecs_queue.core.protocol import RefusalKind, Rules, Word
from ecs_queue.core.record import Record, Submission, client_token_of
from ecs_queue.core.states import State
from ecs_queue.ecs import gateway
from ecs_queue.launcher import launch
from ecs_queue.launcher.consume import Consumer
from ecs_queue.launcher.sweep import Sweeper
from ecs_queue.launcher.track import Tracker
from ecs_queue.waiting import Waiting
from tests.simulation import ledger as simulated_ledger
from tests.simulation import world
from tests.simulation.faults import Faults

#: (object, name of its attribute, what stands in its place)
Change = tuple[Any, str, Any]


def a_new_token_for_every_call() -> list[Change]:
    """ECS cannot tell that a call is the same call again."""
    numbers = itertools.count()
    original = client_token_of
    return [(launch, "client_token_of", lambda *parts: f"{original(*parts)}.{next(numbers)}")]


def acknowledged_before_the_arn_is_kept() -> list[Change]:
    """The message is gone before the launch is known, and nobody looks after a LAUNCHING record."""

    def handle(self: Consumer, delivery: Delivery) -> None:
        delivery.ack()
        self._launcher.take(delivery)

    return [(Consumer, "_handle", handle), (Tracker, "_recover_some", lambda self, records: None)]


def no_sweep() -> list[Change]:
    """Nobody finds what no message speaks of."""
    return [(Sweeper, "step", lambda self: 0.5)]


def results_handed_over_each_time_they_arrive() -> list[Change]:
    """The owner does not deduplicate."""

    def hand_over(self: Waiting[Any], key: tuple[str, str], arrived: Any) -> bool:
        with self._changed:
            waiting = self._wanted.get(key, ())
            for arrivals in waiting:
                arrivals.append(arrived)
        return bool(waiting)

    return [(Waiting, "_hand_over", hand_over)]


def any_claim_holds() -> list[Change]:
    """A worker whose claim was taken over may still write what it believes."""
    return [(lifecycle, "_holds", lambda record, token: record.state is State.LAUNCHING)]


def doubt_taken_for_no_effect() -> list[Change]:
    """A call that timed out counts as one that never was."""

    def decision_of(*arguments: Any) -> Any:
        decision = after_call(*arguments)
        if decision.write is Write.UNSURE:
            return msgspec.structs.replace(decision, write=Write.NO_EFFECT)
        return decision

    return [(launch, "after_call", decision_of)]


def an_empty_list_believed_at_once() -> list[Change]:
    """What ListTasks does not show (yet) counts as never started."""

    def at_once(record: Record, rules: Rules) -> float:
        return record.last_claim_at

    return [(lifecycle, "safe_at", at_once)]


def no_deadline_before_the_call() -> list[Change]:
    """A worker that was frozen sends its call whenever it wakes, freshly signed."""

    def send(self: Any, **_kwargs: object) -> None:
        self._call.sent = True

    return [(gateway._SendGuard, "_before_send", send)]


def a_takeover_leaves_no_doubt() -> list[Change]:
    """The "no" of a second call is believed, while the first one may still be under way."""
    original = lifecycle.reclaim

    def reclaim(record: Record, *arguments: Any) -> Word:
        was = record.dirty
        word = original(record, *arguments)
        record.dirty = was
        return word

    return [(lifecycle, "reclaim", reclaim)]


def no_lease() -> list[Change]:
    """A claim excludes nobody: it is taken over while its holder is at work, and as if nobody were."""
    original = world._rules

    def rules(config: Config) -> Rules:
        return msgspec.structs.replace(original(config), lease_seconds=0.001)

    return [(world, "_rules", rules), *a_takeover_leaves_no_doubt()]


def a_stop_ends_a_launch_in_doubt() -> list[Change]:
    """LAUNCHING goes to REVOKED without a look."""
    original = lifecycle.stop

    def stop(record: Record, by: str, launch: int, now: float) -> Word:
        word = original(record, by, launch, now)
        if word is Word.MARKED and record.state is State.LAUNCHING:
            lifecycle._finish(record, State.REVOKED, record.attempt, now, "stopped")
            return Word.ENDED
        return word

    return [(lifecycle, "stop", stop)]


def messages_never_grow_old() -> list[Change]:
    """A late duplicate makes a new record of a request that was forgotten."""
    original = lifecycle.put

    def put(record: Record | None, new: Submission, now: float) -> Any:
        word, made = original(record, msgspec.structs.replace(new, accept_until=float("inf")), now)
        if made is not None and word is Word.CREATED:
            made.accept_until = new.accept_until
        return word, made

    return [(lifecycle, "put", put)]


def tokens_and_lists_last_for_ever() -> list[Change]:
    """A launch in doubt is called again after an hour, when ECS has forgotten the token of a short task."""
    return [(lifecycle, "LOOK_ONLY_AFTER", float("inf")), (lifecycle, "PROOF_ENDS_AFTER", float("inf"))]


def missing_means_lost() -> list[Change]:
    """A task that DescribeTasks does not show (yet) counts as gone."""
    return [(Tracker, "_not_shown", lambda self, record, why, now: lost_outcome(record, "not shown"))]


def relaunched_whatever_has_run() -> list[Change]:
    """The policy of the request is not asked."""
    return [(decide, "may_relaunch", lambda policy, seen: True)]


def lack_of_capacity_costs_an_attempt() -> list[Change]:
    """A wait is taken for a failure."""
    costs = {**decide._REFUSALS, Kind.CAPACITY: RefusalKind.START_FAILURE}
    return [(decide, "_REFUSALS", costs)]


def no_barrier_after_a_claim() -> list[Change]:
    """ECS is called although a fail-over of the ledger may still forget the claim."""
    return [(simulated_ledger, "_BARRIERS", frozenset())]


def neither_pause_nor_limit_holds_a_claim() -> list[Change]:
    """Workers go by what they knew of the queue a moment ago."""
    return [(lifecycle, "_held_back", lambda offer, rules, crowd: None)]


class Guard(NamedTuple):
    """`turn_off`: the changes that break it; `shows`: a part of what must be found then, as a regular expression.

    `faults`: those under which it matters; None: whatever a seed draws.
    """

    turn_off: Callable[[], list[Change]]
    shows: str
    faults: Faults | None = None


_LOST = Faults(run_lost_before=0.1, run_lost_after=0.3, run_late=0.3, capacity=0.2, invisible=0.3)
_HELD_UP = Faults(stall=0.2, capacity=0.4, agent=0.2, throttle=0.2, run_lost_after=0.3, run_lost_before=0.1)
_NOT_OVER = "not over after"
_STRAY = "is started while its record is|QUEUED .*has a task|QUEUED while its task is alive|one launch number"

GUARDS: Mapping[str, Guard] = {
    guard.turn_off.__name__: guard
    for guard in (
        Guard(a_new_token_for_every_call, "two ECS tasks for one launch number"),
        Guard(acknowledged_before_the_arn_is_kept, _NOT_OVER),
        Guard(no_sweep, _NOT_OVER),
        Guard(results_handed_over_each_time_they_arrive, "was given the result of .* twice"),
        Guard(any_claim_holds, _STRAY, replace(_HELD_UP, never_starts=0.7)),
        Guard(doubt_taken_for_no_effect, _STRAY),
        Guard(an_empty_list_believed_at_once, _STRAY, replace(_LOST, kill=0.01)),
        Guard(no_deadline_before_the_call, _STRAY, Faults(stall=0.25, capacity=0.5, agent=0.1, throttle=0.1)),
        Guard(a_takeover_leaves_no_doubt, _STRAY, _HELD_UP),
        Guard(no_lease, _STRAY, _HELD_UP),
        Guard(a_stop_ends_a_launch_in_doubt, "stop moved", _LOST),
        Guard(
            messages_never_grow_old,
            "ended and begins again|the terminal record .* moved",
            Faults(delay=0.5, double=0.5),
        ),
        Guard(tokens_and_lists_last_for_ever, "two ECS tasks", replace(_LOST, lasting=1.0)),
        Guard(missing_means_lost, "ended UNKNOWN while its task is alive", _LOST),
        Guard(relaunched_whatever_has_run, "although relaunch=", Faults(exits_1=0.5)),
        Guard(lack_of_capacity_costs_an_attempt, "consumed an attempt, but nothing", _LOST),
        Guard(neither_pause_nor_limit_holds_a_claim, "while its queue is paused|are in flight", Faults()),
        Guard(no_barrier_after_a_claim, f"{_STRAY}|that no record knows|{_NOT_OVER}", Faults(fail_over=0.3)),
    )
}


@contextmanager
def broken(guard: str) -> Iterator[None]:
    """While it lasts, the guard of that name is off."""
    changes = GUARDS[guard].turn_off()
    patches = [patch.object(where, name, what) for where, name, what in changes]
    try:
        for each in patches:
            each.start()
        yield
    finally:
        for each in patches:
            each.stop()
