"""What the tasks of a journal used: vCPU-seconds and GB-seconds of each group, and what they cost.

Pure. A task counts when the journal has its end: the description of the stopped task, with its cpu, memory and times,
from the poll of a request or of a runner that has left. Fargate bills from the start of the image's pull to the end of
the task, rounded up to a second, one minute at least (https://aws.amazon.com/fargate/pricing/); Windows has other rules
and prices, so its tasks get no price here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from ecs_queue.config.prices import PRICED_CAPACITIES, Price
from ecs_queue.journal.base import MAX_TIME, JournalEvent
from ecs_queue.journal.runner_time import OTHER_GROUPS, Part, RunnerTime
from ecs_queue.protocol.observation import parse_timestamp
from ecs_queue.protocol.runs import CLOSED_BY_VOID, queue_of_pool

#: The events that `CostMeter.add` uses.
EVENT_NAMES = (
    *("decision.poll", "launch.started", "launch.task_found", "launch.assigned", "runner.idle"),
    "runner.ended",
)
#: The shortest time that Fargate bills of a Linux task, in seconds.
MIN_BILLED_SECONDS = 60.0
#: Tasks and runners that a meter remembers at a time, and groups that it tells apart: its memory has a bound.
MAX_REMEMBERED, MAX_GROUPS = 100_000, 10_000
#: The group of the tasks that have no label of the key; OTHER_GROUPS has those beyond MAX_GROUPS.
NO_GROUP = ""
#: Larger than any task: 1,024 vCPU in CPU units, and 64 TB in MiB.
_MAX_CPU_UNITS, _MAX_MEMORY_MIB = 2**20, 2**26


class TaskUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one group used of a task that has ended.

    Attributes:
        group: what it is counted under.
        capacity: `FARGATE`, `FARGATE_SPOT`, another capacity provider, or `EC2`; with ` windows` behind it for Windows.
        vcpus, gigabytes: what the task reserved; 1,024 CPU units are a vCPU, 1,024 MiB a GB.
        seconds: of the billed time.
        use: `run`, or `idle` for what a runner of a warm pool spent without a command.
    """

    group: str
    capacity: str
    vcpus: float
    gigabytes: float
    seconds: float
    use: str = "run"


class CostRow(msgspec.Struct, kw_only=True):
    """The total of a group on one capacity.

    Attributes:
        use: `run`, or `idle` for the time of runners without a command.
        tasks: number of tasks. A runner is in the row `idle`, and in the row `run` of each group that it worked for.
        cost: in the price table's currency; None without a price.
    """

    group: str
    capacity: str
    use: str
    tasks: int = 0
    vcpu_seconds: float = 0.0
    gb_seconds: float = 0.0
    cost: float | None = None


class CostTotals(msgspec.Struct, kw_only=True):
    """All rows, and what they leave out.

    Attributes:
        without_end: tasks whose start the journal has, and not their end: they still run, or no worker saw their end.
        unusable: ends without cpu, memory or usable times.
        idle_unknown: runners whose idle time is part of their row `run`.
        unverified: used events that no signing key verifies.
    """

    rows: list[CostRow]
    without_end: int = 0
    unusable: int = 0
    idle_unknown: int = 0
    unverified: int = 0


def total_use(uses: Iterable[TaskUse], prices: Sequence[Price] = ()) -> list[CostRow]:
    """Return the totals by group, capacity and use, in that order. The memory depends on the number of groups."""
    rows: dict[tuple[str, str, str], CostRow] = {}
    for use in uses:
        _add_use(rows, use)
    return price_rows(rows.values(), prices)


def price_rows(rows: Iterable[CostRow], prices: Sequence[Price]) -> list[CostRow]:
    """Return the rows in order, with what they cost."""
    by_capacity = {price.capacity: price for price in prices}
    ordered = sorted(rows, key=lambda row: (row.group, row.capacity, row.use != "run"))
    for row in ordered:
        price = by_capacity.get(row.capacity)
        if price is not None:
            row.cost = (row.vcpu_seconds * price.vcpu_hour + row.gb_seconds * price.gb_hour) / 3600
    return ordered


def _add_use(rows: dict[tuple[str, str, str], CostRow], use: TaskUse) -> None:
    group = use.group if len(rows) < MAX_GROUPS or (use.group, use.capacity, use.use) in rows else OTHER_GROUPS
    new = CostRow(group=group, capacity=use.capacity, use=use.use)
    row = rows.setdefault((group, use.capacity, use.use), new)
    row.tasks += 1
    row.vcpu_seconds += use.seconds * use.vcpus
    row.gb_seconds += use.seconds * use.gigabytes


_Value = TypeVar("_Value")


class _Recent(Generic[_Value]):
    """A dictionary of the newest MAX_REMEMBERED keys."""

    def __init__(self) -> None:
        self.items: dict[str, _Value] = {}

    def add(self, key: str, value: _Value) -> _Value:
        """Add a key unless it is there, and return its value."""
        found = self.items.setdefault(key, value)
        if len(self.items) > MAX_REMEMBERED:
            del self.items[next(iter(self.items))]
        return found


class CostMeter:
    """Adds up the events of a journal, in the order of their `seq`; keeps bounded memory."""

    def __init__(self, by: str = "queue", since: float = 0.0) -> None:
        """Group by `queue`, or by the label of this key: `label:KEY`; count only ends that were seen since then.

        Events before `since` say what the runners did that ended after it.
        """
        self._since = since
        self._label = by.removeprefix("label:") if by.startswith("label:") else None
        self._rows: dict[tuple[str, str, str], CostRow] = {}
        self._ended = _Recent[None]()
        self._started = _Recent[None]()
        self._runners = _Recent[RunnerTime]()
        self._unusable = self._idle_unknown = self._unverified = 0

    def add(self, event: JournalEvent) -> None:
        """Add an event; what is none of EVENT_NAMES changes nothing."""
        data, run = event.data, str(event.data.get("run") or "")
        if event.name == "decision.poll":
            poll_input = data.get("poll_input")
            record = _member(poll_input, "record")
            if isinstance(record, Mapping):
                self._add_end(event, _member(poll_input, "task"), record)
        elif event.name == "runner.ended":
            self._add_end(event, data.get("task"), None)
        elif event.name == "runner.idle":
            self._end_command(self._runners.add(run, RunnerTime()), event)
        elif event.name in EVENT_NAMES:
            arn = str(data.get("arn", ""))
            if arn and arn not in self._ended.items and event.at >= self._since:
                self._started.add(arn, None)
            if event.name == "launch.assigned":
                self._runners.add(run, RunnerTime()).begin_command(event.at)

    def totals(self, prices: Sequence[Price] = ()) -> CostTotals:
        """Return the rows and what they leave out."""
        return CostTotals(
            rows=price_rows(self._rows.values(), prices),
            without_end=len(self._started.items),
            unusable=self._unusable,
            idle_unknown=self._idle_unknown,
            unverified=self._unverified,
        )

    def _end_command(self, runner: RunnerTime, event: JournalEvent) -> None:
        """A runner has no command any more."""
        try:
            group = self._group(queue_of_pool(str(event.data.get("pool") or "")), event.data.get("labels"))
        except ValueError:
            runner.is_complete = False
        else:
            runner.end_command(event.data.get("turn"), event.at, group)

    def _add_end(self, event: JournalEvent, task: object, record: Mapping[str, Any] | None) -> None:
        """Count a task that has ended; `record` is that of the command that it had, None for an idle runner."""
        arn = str(event.data.get("arn", ""))
        if not isinstance(task, Mapping) or task.get("lastStatus") != "STOPPED" or arn in self._ended.items:
            return  # it runs, or another worker saw the same end, or the same worker saw it again
        self._ended.add(arn, None)
        self._started.items.pop(arn, None)
        if event.at < self._since:
            return
        self._unverified += event.verified is False
        try:
            vcpus = _bounded(float(task.get("cpu", "")), _MAX_CPU_UNITS) / 1024
            gigabytes = _bounded(float(task.get("memory", "")), _MAX_MEMORY_MIB) / 1024
            parts = self._split_idle(event.data, task) if record is None else self._split(record, task)
        except (TypeError, ValueError, OverflowError):
            self._unusable += 1
            return
        capacity = _capacity(task)
        for group, seconds, use in parts:
            size = TaskUse(group=group, capacity=capacity, vcpus=vcpus, gigabytes=gigabytes, seconds=seconds, use=use)
            _add_use(self._rows, size)

    def _split(self, record: Mapping[str, Any], task: Mapping[str, Any]) -> list[Part]:
        """What the groups used of a task that had a command when it stopped."""
        group = self._group(str(record.get("queue") or NO_GROUP), record.get("labels"))
        runner = self._runners.items.pop(str(record.get("run") or NO_GROUP), None)
        if runner is None:
            return [Part(group, _billed_seconds(task))]  # no runner's, or the runner's first command was its only one
        runner.end_with_command(_time(task, "stoppedAt"), group)
        return self._parts(runner, task, group)

    def _split_idle(self, data: Mapping[str, Any], task: Mapping[str, Any]) -> list[Part]:
        """What the groups used of a runner that had no command when it stopped."""
        runner = self._runners.items.pop(str(data.get("run") or NO_GROUP), None) or RunnerTime()
        # It has not taken the command that was taken away from it.
        runner.end_idle(int(data.get("turn") or 0) - (data.get("closed") == CLOSED_BY_VOID))
        return self._parts(runner, task, self._group(queue_of_pool(str(data.get("pool") or "")), None))

    def _parts(self, runner: RunnerTime, task: Mapping[str, Any], group: str) -> list[Part]:
        """Split the time; `group` has what belongs to no single other one."""
        seconds = _billed_seconds(task)
        parts = runner.split(seconds, _began(task), group)
        self._idle_unknown += parts is None
        return [Part(group, seconds)] if parts is None else parts

    def _group(self, queue: str, labels: object) -> str:
        if self._label is None:
            return queue
        found = msgspec.json.decode(labels, type=dict[str, str]) if isinstance(labels, str) and labels else {}
        return found.get(self._label, NO_GROUP)


def _capacity(task: Mapping[str, Any]) -> str:
    name = str(task.get("capacityProviderName") or task.get("launchType") or "unknown")
    is_windows = str(task.get("platformFamily") or "").lower().startswith("windows")
    return f"{name} windows" if is_windows else name


def _billed_seconds(task: Mapping[str, Any]) -> float:
    """Return the time that Fargate bills, elsewhere the time from pull to end; 0 of a task that never got so far."""
    stopped, began = _time(task, "stoppedAt"), _began(task)
    if not stopped:
        raise ValueError("no stoppedAt")
    if not began:
        return 0.0
    seconds = max(0.0, stopped - began)
    is_fargate = _capacity(task).partition(" ")[0] in PRICED_CAPACITIES
    return max(MIN_BILLED_SECONDS, float(math.ceil(seconds))) if is_fargate else seconds


def _began(task: Mapping[str, Any]) -> float:
    """When its bill begins, 0 for never."""
    return _time(task, "pullStartedAt") or _time(task, "startedAt")


def _time(task: Mapping[str, Any], key: str) -> float:
    """A time of the task, 0 for none."""
    found = parse_timestamp(task.get(key)) or 0.0
    return _bounded(found, MAX_TIME) if found else 0.0


def _bounded(value: float, maximum: float) -> float:
    if not 0 <= value <= maximum:  # a NaN is not
        raise ValueError("out of bounds")
    return value


def _member(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
