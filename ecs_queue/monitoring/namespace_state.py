"""The state of a namespace as ledger and broker have it: read once for every scraper that asks within some seconds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from ecs_queue.config import Config
from ecs_queue.errors import EcsQueueError
from ecs_queue.ledger.base import Ledger, WorkerInfo
from ecs_queue.monitoring.catalogue import MAX_QUEUES, OTHER, Sample
from ecs_queue.monitoring.scaling import DRAIN_SECONDS, ScaleSignal, count_workers_wanted
from ecs_queue.protocol.runs import Run, RunnerActivity, find_activity, queue_of_pool
from ecs_queue.protocol.states import LIVE_STATES, State

#: For how long a read, or a failed one, answers every scraper. Seconds.
_MAX_AGE = 3.0
#: The longest time that a scrape waits for a read. The read goes on and serves the next scrape. Seconds.
_MAX_WAIT = 1.0


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """One queue. `states` are numbers of requests, terminal ones since the namespace began; `age` is in seconds.

    `delayed` are those of the QUEUED ones that were submitted for a time that has not come, `key_waiting` those whose
    concurrency key is full.
    """

    states: Mapping[State, int]
    backlog: int
    oldest_age: float
    paused: bool
    workers: int
    delayed: int = 0
    key_waiting: int = 0

    @property
    def waiting(self) -> int:
        """Requests that could be launched now: messages in the broker, or QUEUED records if there are more."""
        # With nothing in flight no key is full: one request of each is about to be launched.
        held_back = self.delayed + (self.key_waiting if self.in_flight else 0)
        return max(self.backlog, self.states.get(State.QUEUED, 0) - held_back)

    @property
    def in_flight(self) -> int:
        """Requests that are being launched or run."""
        return self.states.get(State.LAUNCHING, 0) + self.states.get(State.LAUNCHED, 0)


class NamespaceState(msgspec.Struct, frozen=True, kw_only=True):
    """Every known queue, at most `MAX_QUEUES`; `others` are the names of those beyond, `other_states` their numbers.

    `runners` are the numbers of runners of each queue that has some, `dead_letters` those of dead letters, also of
    queues that are not known.
    """

    queues: Mapping[str, QueueState]
    other_states: Mapping[State, int]
    others: frozenset[str] = frozenset()
    workers: Sequence[WorkerInfo]
    runners: Mapping[str, Mapping[RunnerActivity, int]] = {}
    dead_letters: Mapping[str, int] = {}
    broken_items: int = 0
    seconds: float = 0.0


def read_namespace_state(
    ledger: Ledger,
    backlog: Callable[[str], int],
    queues: Iterable[str],
    *,
    runner_ttl: float = 0.0,
    with_items: bool = False,
) -> NamespaceState:
    """Return the state of these queues and of every other one that ledger and workers know.

    Args:
        ledger: The ledger.
        backlog: Returns the number of a queue's messages.
        queues: They come first when there are more than `MAX_QUEUES`.
        runner_ttl: After which time without a call a runner counts as silent.
        with_items: Also count runners, dead letters and broken items; not every user of the server may.

    Raises:
        EcsQueueError: Ledger or broker cannot be reached, or a right is missing.
    """
    counts, paused, workers = ledger.count_by_state(), ledger.list_paused_queues(), ledger.list_workers()
    served = [queue for worker in workers for queue in worker.queues]
    known = list(dict.fromkeys([*queues, *sorted({*served, *paused, *counts} - {""})]))
    names = known[:MAX_QUEUES]
    oldest, delayed, now = ledger.find_oldest_queued(names), ledger.count_delayed(names), ledger.now()
    key_waiting = ledger.count_waiting_for_keys(names)
    other: dict[State, int] = {}
    for name in known[MAX_QUEUES:]:
        for state, number in counts.get(name, {}).items():
            other[state] = other.get(state, 0) + number
    found = {
        name: QueueState(
            states=counts.get(name, {}),
            backlog=backlog(name),
            oldest_age=max(0.0, now - oldest.get(name, now)),
            paused=name in paused,
            workers=served.count(name),
            delayed=delayed.get(name, 0),
            key_waiting=key_waiting.get(name, 0),
        )
        for name in names
    }
    dead, broken = (ledger.count_dead_letters(), len(ledger.list_broken())) if with_items else ({}, 0)
    return NamespaceState(
        queues=found,
        other_states=other,
        others=frozenset(known[MAX_QUEUES:]),
        workers=workers,
        runners=count_runners(ledger.list_runs(), now, runner_ttl) if with_items else {},
        dead_letters=dead,
        broken_items=broken,
    )


def count_runners(runs: Iterable[Run], now: float, runner_ttl: float) -> dict[str, Counter[RunnerActivity]]:
    """Return how many runners of each queue do what; queues without a runner are left out."""
    found: dict[str, Counter[RunnerActivity]] = {}
    for run in runs:
        if activity := find_activity(run, now, runner_ttl):
            found.setdefault(queue_of_pool(run.pool), Counter())[activity] += 1
    return found


def scale_signal(
    config: Config, state: NamespaceState, queue: str, drain_seconds: float = DRAIN_SECONDS
) -> ScaleSignal:
    """Return the signal of a queue; of one that is not known it is all zeros."""
    found = state.queues.get(queue) or QueueState(states={}, backlog=0, oldest_age=0.0, paused=False, workers=0)
    room = float("inf")
    if config.max_in_flight:
        room = config.max_in_flight - sum(each.in_flight for each in state.queues.values())
    if limit := config.profile(queue).max_in_flight:
        room = min(room, limit - found.in_flight)
    rates = [rate for rate in (config.run_task_rate, config.profile(queue).launch_rate) if rate]
    wanted = count_workers_wanted(
        found.waiting,
        found.in_flight,
        config.concurrency,
        min(rates, default=0.0),
        room=0 if found.paused else room,
        drain_seconds=drain_seconds,
    )
    return ScaleSignal(
        queue=queue,
        backlog=found.waiting,
        oldest_age_seconds=round(found.oldest_age, 3),
        in_flight=found.in_flight,
        live_workers=found.workers,
        workers_wanted=wanted,
        paused=int(found.paused),
    )


def namespace_samples(config: Config, state: NamespaceState) -> list[Sample]:
    """Return every value of the catalogue whose source is the ledger, except `ecs_queue_ledger_up`."""
    samples: list[Sample] = []
    for queue, found in state.queues.items():
        samples += _queue_samples(config, state, queue, found)
        if queue in state.runners or config.profile(queue).warm_seconds:
            samples += _runner_samples(queue, state.runners.get(queue, {}))
    samples += _state_samples(OTHER, state.other_states) if state.other_states else []
    starts = sum(worker.start_call_rate for worker in state.workers)
    reads = sum(worker.read_call_rate for worker in state.workers)
    limits = (("run_task", starts, config.run_task_rate), ("describe_tasks", reads, config.describe_tasks_rate))
    samples += [Sample("ecs_queue_quota_used_ratio", used / limit, (name,)) for name, used, limit in limits if limit]
    failing = sum(worker.health != "ok" for worker in state.workers)
    return [
        *samples,
        Sample("ecs_queue_workers_failing", failing),
        Sample("ecs_queue_dead_letters", sum(state.dead_letters.values())),
        *_dead_letter_samples(state),
        Sample("ecs_queue_broken_items", state.broken_items),
        Sample("ecs_queue_state_read_seconds", state.seconds),
    ]


def _dead_letter_samples(state: NamespaceState) -> list[Sample]:
    numbers = {queue: state.dead_letters.get(queue, 0) for queue in state.queues}
    if other := sum(state.dead_letters.values()) - sum(numbers.values()):
        numbers[OTHER] = other
    return [Sample("ecs_queue_queue_dead_letters", number, (queue,)) for queue, number in numbers.items()]


def _queue_samples(config: Config, state: NamespaceState, queue: str, found: QueueState) -> list[Sample]:
    wanted = scale_signal(config, state, queue).workers_wanted
    return [
        *_state_samples(queue, found.states),
        Sample("ecs_queue_backlog_messages", found.backlog, (queue,)),
        Sample("ecs_queue_delayed_requests", found.delayed, (queue,)),
        Sample("ecs_queue_key_waiting_requests", found.key_waiting, (queue,)),
        Sample("ecs_queue_oldest_queued_age_seconds", found.oldest_age, (queue,)),
        Sample("ecs_queue_queue_paused", found.paused, (queue,)),
        Sample("ecs_queue_workers", found.workers, (queue,)),
        Sample("ecs_queue_workers_wanted", wanted, (queue,)),
    ]


def _runner_samples(queue: str, runners: Mapping[RunnerActivity, int]) -> list[Sample]:
    return [
        Sample("ecs_queue_runners", runners.get(activity, 0), (queue, activity.value)) for activity in RunnerActivity
    ]


def _state_samples(queue: str, states: Mapping[State, int]) -> list[Sample]:
    samples = [Sample("ecs_queue_requests_submitted_total", sum(states.values()), (queue,))]
    for state in State:
        name = "ecs_queue_requests" if state in LIVE_STATES else "ecs_queue_requests_ended_total"
        samples.append(Sample(name, states.get(state, 0), (queue, state.value)))
    return samples


class StateCache:
    """Hands out one read to every caller of the next seconds. Thread-safe.

    One thread at a time reads, and only when a caller asks: a ledger that hangs costs each caller `_MAX_WAIT` at most,
    and none of the next ones until the read has ended or `_MAX_AGE` is over.
    """

    def __init__(self, read: Callable[[], NamespaceState], monotonic: Callable[[], float]) -> None:
        self._read = read
        self._monotonic = monotonic
        self._condition = threading.Condition()
        self._reading_since: float | None = None
        self._state: NamespaceState | None = None
        self._reason = "it was never read"
        self._read_at = float("-inf")

    def get(self) -> NamespaceState | str:
        """Return the state, at most some seconds old, or why there is none."""
        with self._condition:
            if self._monotonic() - self._read_at <= _MAX_AGE:
                return self._state or self._reason
            if self._reading_since is None:
                self._reading_since = self._monotonic()
                threading.Thread(target=self._run, name="monitoring-read", daemon=True).start()
            left = self._reading_since + _MAX_WAIT - self._monotonic()
            if self._condition.wait_for(lambda: self._reading_since is None, max(0.0, left)):
                return self._state or self._reason
            return f"ledger and broker have not answered for {_MAX_WAIT:g} s"

    def _run(self) -> None:
        state, reason = None, ""
        began = self._monotonic()
        try:
            state = msgspec.structs.replace(self._read(), seconds=self._monotonic() - began)
        except EcsQueueError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a scraper must get an answer, whatever fails
            reason = type(error).__name__
        with self._condition:
            self._state, self._reason, self._read_at = state, reason, self._monotonic()
            self._reading_since = None
            self._condition.notify_all()
