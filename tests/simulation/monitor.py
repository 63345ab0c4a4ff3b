"""The invariants, checked at every change of a record and of a task, against what the model of ECS knows to be true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from ecs_queue.config import Config
from ecs_queue.core.breaking import broken_reason
from ecs_queue.core.protocol import Answer
from ecs_queue.core.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, startedby_of
from ecs_queue.core.states import LIVE, TRANSITIONS, State
from tests.simulation.ecs import ModelEcs, Task
from tests.simulation.ledger import TrueLedger
from tests.simulation.owners import Owner
from tests.simulation.process import Stage

#: What the ledger calls an operation, where the table of moves calls it something else.
_MOVES = {
    "admit": TRANSITIONS["put"] | TRANSITIONS["claim"],
    "outcomes": TRANSITIONS["outcome"],
    "prune": frozenset(),
    **TRANSITIONS,
}


class Monitor:
    """`findings`: what must not have happened. `met`: how often each operation gave each answer."""

    def __init__(self, stage: Stage, config: Config) -> None:
        self._stage = stage
        self._namespace = config.namespace
        self._max_attempts = config.base_profile.max_run_task_attempts
        self._startup_allowance = config.startup_allowance
        self._limits = [limit for limit in (config.max_in_flight, config.base_profile.max_in_flight) if limit]
        self.paused = False
        self._max_deliveries = config.max_deliveries
        self._known: dict[str, Record] = {}
        self._ended: dict[tuple[str, str], Record] = {}
        self._forgotten_ends: set[tuple[str, str]] = set()
        self.lost_puts: set[str] = set()
        self.findings: list[str] = []
        self.met: Counter[str] = Counter()
        self.ledger: TrueLedger
        self.ecs: ModelEcs

    def watch(self, ledger: TrueLedger, ecs: ModelEcs) -> None:
        """What is checked against what."""
        self.ledger, self.ecs = ledger, ecs

    def found(self, what: str) -> None:
        """A violation."""
        self._stage.tell(f"VIOLATION: {what}")
        self.findings.append(what)

    def changed(self, operation: str, answer: Any) -> None:
        """The ledger has carried out an operation."""
        job = self._stage.scheduler.current
        by_event = job is not None and job.name == "events"
        for each in _answers(answer):
            self.met[f"{operation} {each.word.value}"] += 1
            if by_event:
                self.met[f"by an event: {operation} {each.word.value}"] += 1
        records = self.ledger.records
        for record_id, record in records.items():
            was = self._known.get(record_id)
            if was is None or _moved(was, record):
                self._compare(operation, was, record)
                self._known[record_id] = msgspec.structs.replace(record)
        if len(self._known) > len(records):
            self._known = {key: record for key, record in self._known.items() if key in records}

    def fail_over(self) -> None:
        """The ledger has lost a second: what it holds now is what is known."""
        records = self.ledger.records
        for record_id in self._known.keys() - records.keys():
            self.lost_puts.add(record_id)
        self._known = {key: msgspec.structs.replace(record) for key, record in records.items()}
        forgotten = {key for key in self._ended if not self._is_known_ended(key)}
        self._ended = {key: record for key, record in self._ended.items() if key not in forgotten}
        self._forgotten_ends |= forgotten

    def task_created(self, task: Task) -> None:
        """ECS has started a task."""
        started_by = task.started_by
        if len(self.ecs.by_started[started_by]) > 1:
            self.found(f"two ECS tasks for one launch number: {started_by}")
        _, record_id, nonce, launch = started_by.split("/")
        others = [other for other in self._tasks_of(record_id, nonce) if other is not task]
        if any(other.alive for other in others):
            self.found(f"two tasks alive for one request: {started_by}")
        record = self.ledger.records.get(record_id)
        if record is None or record.nonce != nonce:
            self.found(f"a task is started that no record knows: {started_by}")
            return
        if record.state is not State.LAUNCHING or record.launch != int(launch):
            self.found(f"{started_by} is started while its record is {record.state}, launch {record.launch}")
        for other in others:
            if other.ran and not _may_follow(record.relaunch, other):
                self.found(f"{started_by} is started after {other.stop_code} although relaunch={record.relaunch}")

    def finish(self, owners: Iterable[Owner]) -> None:
        """Everything works and nothing is left to do: all must have come to its end."""
        for record in self.ledger.records.values():
            if not record.ended:
                self.found(f"{record.id} has not ended: {record.state}")
        if self.ledger.look_at or self.ledger.expiry:
            self.found(f"an index holds what is not live: {dict(self.ledger.look_at)} {dict(self.ledger.expiry)}")
        for task in self.ecs.tasks.values():
            if task.alive:
                self.found(f"the task of {task.started_by} is still alive")
        for owner in owners:
            self._delivered(owner)

    def _delivered(self, owner: Owner) -> None:
        told = {(result.id, result.nonce): result for result in owner.results}
        for wish in owner.wishes:
            if not wish.accepted:
                continue
            record = self._ended.get((wish.id, wish.nonce))
            if record is None:
                # Lost at a fail-over, before it was durable: it is up to its owner to put it again, who has died.
                if not (wish.id in self.lost_puts and (owner.abandoned or owner.heir_of)):
                    self.found(f"{wish.id} was accepted and never ended")
                continue
            result = told.get((wish.id, wish.nonce))
            if result is None and owner.heir_of:
                # Its put was lost at a fail-over: what its heir was told of is the stop of an id that nobody knew.
                result = told.get((wish.id, ""))
            # Its owner had the truth; ECS has forgotten it before anybody looked again.
            is_gone = record.state is State.UNKNOWN and (wish.id, wish.nonce) in self._forgotten_ends
            if result is not None and result.state != record.state.value and not is_gone:
                self.found(f"{owner.name} was told {result.state} of {wish.id}, the ledger says {record.state}")
            if result is None and not owner.abandoned:
                self.found(f"{owner.name} never got the result of {wish.id}")
            kept = self.ledger.records.get(wish.id)
            is_owed = kept is not None and kept.owner == owner.name and kept.nonce == wish.nonce
            if result is None and owner.abandoned and is_owed and not (kept and kept.undelivered):
                self.found(f"the result of {wish.id} counts as delivered to {owner.name}, which is dead")

    def _check_room(self, record: Record) -> None:
        if self.paused:
            self.found(f"{record.id} is claimed while its queue is paused")
        states = (State.LAUNCHING, State.LAUNCHED)
        in_flight = sum(other.state in states for other in self.ledger.records.values())
        if any(in_flight > limit for limit in self._limits):
            self.found(f"{record.id} is claimed, with it {in_flight} are in flight")

    def _compare(self, operation: str, was: Record | None, record: Record) -> None:
        if was is not None and was.nonce != record.nonce and was.digest:
            was = None  # an id that was used again, after its record was forgotten
        if was is None and (record.id, record.nonce) in self._ended:
            self.found(f"{record.id} has ended and begins again")
        self._check_move(operation, was, record)
        self._check_index(record)
        if operation in ("claim", "admit") and record.state is State.LAUNCHING:
            self._check_room(record)
        if was is not None and not was.ended:
            self._check_numbers(was, record)
        if record.state is State.LAUNCHED and (was is None or was.state is not State.LAUNCHED):
            task = self.ecs.tasks.get(record.arn)
            if task is None or task.started_by != self._started_by(record):
                self.found(f"{record.id} is LAUNCHED as {record.arn}, which is not the task of launch {record.launch}")
        if record.state is State.QUEUED and record.nonce:
            self._check_queued(record)
        if record.ended and record.nonce and (was is None or not was.ended):
            self._check_end(record)
        if record.ended and record.nonce:
            self._ended[record.id, record.nonce] = msgspec.structs.replace(record)

    def _check_move(self, operation: str, was: Record | None, record: Record) -> None:
        if was is not None and was.ended:
            if was.digest and _final(was) != _final(record):
                self.found(f"the terminal record {was.id} moved: {_final(was)} -> {_final(record)}")
            return
        if was is not None and was.state is record.state:
            return
        moves = _MOVES.get(operation, frozenset())
        before = was.state if was else None
        by_way = {middle for start, middle in moves if start is before}
        if (before, record.state) not in moves and not any((middle, record.state) in moves for middle in by_way):
            self.found(f"{operation} moved {record.id} from {before} to {record.state}")

    def _check_index(self, record: Record) -> None:
        if (record.id in self.ledger.look_at) != (record.state in LIVE):
            self.found(f"{record.id} is {record.state} and {'not ' if record.state in LIVE else ''}in the due index")
        if (record.id in self.ledger.expiry) != (record.state is State.QUEUED and bool(record.expires_at)):
            self.found(f"{record.id} is {record.state} and wrongly (not) in the index of deadlines")

    def _check_numbers(self, was: Record, record: Record) -> None:
        if record.launch not in (was.launch, was.launch + 1) or record.attempt not in (was.attempt, was.attempt + 1):
            self.found(f"{record.id} jumped from {was.launch}/{was.attempt} to {record.launch}/{record.attempt}")
        if record.attempt > self._max_attempts:
            self.found(f"{record.id} makes attempt {record.attempt} of {self._max_attempts}")
        if record.launch == was.launch:
            if record.attempt != was.attempt:
                self.found(f"{record.id} consumed an attempt without a new launch number")
            return
        started_by = self._started_by(was)
        tasks = self.ecs.by_started.get(started_by, [])
        failed = bool(self.ecs.agent_failures.get(started_by)) or any(not task.alive for task in tasks)
        if record.attempt > was.attempt and not failed:
            self.found(f"{record.id} consumed an attempt, but nothing of launch {was.launch} has failed")
        if record.attempt == was.attempt and tasks:
            self.found(f"launch {was.launch} of {record.id} started a task, and no attempt was consumed")

    def _check_queued(self, record: Record) -> None:
        if any(task.alive for task in self._tasks_of(record.id, record.nonce)):
            self.found(f"{record.id} is QUEUED while its task is alive")
        if self.ecs.by_started.get(self._started_by(record)):
            self.found(f"{record.id} is QUEUED for launch {record.launch}, which has a task")

    def _check_end(self, record: Record) -> None:
        self.met[f"end {record.state.value}"] += 1
        tasks = self._tasks_of(record.id, record.nonce)
        given_up = record.reason.startswith(broken_reason(self._max_deliveries))
        if any(task.alive for task in tasks) and not (given_up and record.state is State.UNKNOWN):
            self.found(f"{record.id} ended {record.state} while its task is alive")
        if not record.undelivered and record.owner:
            self.found(f"{record.id} ended and its result is not on its way to {record.owner}")
        if given_up:
            self.met[f"given up {record.state.value}"] += 1
            if record.state is State.FAILED and self.ecs.by_started.get(self._started_by(record)):
                self.found(f"{record.id} was given up, and launch {record.launch} has a task")
            return
        if not self._is_true(record, tasks):
            self.found(f"{record.id} ended {record.state} ({record.reason}), which is not what happened")
        if record.attempts > self._max_attempts:
            self.found(f"{record.id} ended after {record.attempts} attempts of {self._max_attempts}")

    def _is_true(self, record: Record, tasks: list[Task]) -> bool:
        task = self.ecs.tasks.get(record.arn)
        refused = any(key.startswith(self._prefix(record.id, record.nonce)) for key in self.ecs.refusals)
        match record.state:
            case State.SUCCESS:
                return task is not None and task.ran and _exit_of(task) == 0
            case State.FAILED:
                stopped = record.stop_by in (STOPPED_BY_TIME_LIMIT, STOPPED_BY_EXPIRY)
                return refused or (task is not None and task.ran and (stopped or _exit_of(task) != 0))
            case State.REMOVED:
                return record.attempts == self._max_attempts or bool(record.stop_by)
            case State.REVOKED:
                return bool(record.stop_by)
            case State.EXPIRED:
                return bool(record.expires_at) and record.expires_at <= self._stage.now + self._startup_allowance
        return all(not task.shown(self._stage.now) for task in tasks)

    def _is_known_ended(self, key: tuple[str, str]) -> bool:
        record = self.ledger.records.get(key[0])
        if record is None or not record.ended:
            return record is None
        return record.nonce in (key[1], "")  # "": a stop came first, and what is lost is only whom it has stopped

    def _tasks_of(self, record_id: str, nonce: str) -> list[Task]:
        prefix = self._prefix(record_id, nonce)
        return [task for task in self.ecs.tasks.values() if task.started_by.startswith(prefix)]

    def _prefix(self, record_id: str, nonce: str) -> str:
        return f"{self._namespace}/{record_id}/{nonce}/"

    def _started_by(self, record: Record) -> str:
        return startedby_of(self._namespace, record.id, record.nonce, record.launch)


def _answers(answer: Any) -> Iterable[Answer]:
    if isinstance(answer, Answer):
        return (answer,)
    if isinstance(answer, list | tuple):
        return [each for each in answer if isinstance(each, Answer)]
    return ()


def _moved(was: Record, record: Record) -> bool:
    return (
        was.state is not record.state
        or was.launch != record.launch
        or was.attempt != record.attempt
        or was.nonce != record.nonce
        or (was.ended and _final(was) != _final(record))
    )


def _final(record: Record) -> tuple[Any, ...]:
    """What of a terminal record never changes."""
    return record.nonce, record.state, record.attempts, record.exit_code, record.arn, record.reason, record.finished_at


def _exit_of(task: Task) -> int | None:
    return next((container.get("exitCode") for container in task.view["containers"]), None)


def _may_follow(policy: str, earlier: Task) -> bool:
    interrupted = earlier.stop_code == "SpotInterruption"
    return policy == "any_failure" or (policy == "interrupted" and interrupted)
