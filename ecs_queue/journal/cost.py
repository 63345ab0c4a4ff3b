"""What the tasks of a journal used: vCPU-seconds and GB-seconds of each group, and what they cost.

Pure. A task counts when the journal has its end: the description of the stopped task, with its cpu, memory and times.
Fargate bills from the start of the image's pull to the end of the task, rounded up to a second, one minute at least
(https://aws.amazon.com/fargate/pricing/); Windows has other rules and prices, so its tasks get no price here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from ecs_queue.config.prices import PRICED_CAPACITIES, Price
from ecs_queue.journal.base import MAX_TIME, JournalEvent
from ecs_queue.protocol.observation import parse_timestamp

#: The events that `CostMeter.add` uses.
EVENT_NAMES = ("decision.poll", "launch.started", "launch.task_found", "launch.assigned", "runner.idle")
#: The shortest time that Fargate bills of a Linux task, in seconds.
MIN_BILLED_SECONDS = 60.0
#: Tasks and runners that a meter remembers at a time, and groups that it tells apart: its memory has a bound.
MAX_REMEMBERED, MAX_GROUPS = 100_000, 10_000
#: The group of the tasks that have no label of the key, and that of those beyond MAX_GROUPS.
NO_GROUP, OTHER_GROUPS = "", "(other)"
#: Larger than any task: 1,024 vCPU in CPU units, and 64 TB in MiB.
_MAX_CPU_UNITS, _MAX_MEMORY_MIB = 2**20, 2**26


class TaskUse(msgspec.Struct, frozen=True, kw_only=True):
    """One task that has ended.

    Attributes:
        group: what it is counted under.
        capacity: `FARGATE`, `FARGATE_SPOT`, another capacity provider, or `EC2`; with ` windows` behind it for Windows.
        vcpus, gigabytes: what the task reserved; 1,024 CPU units are a vCPU, 1,024 MiB a GB.
        seconds: the billed time.
        idle_seconds: of it what a runner of a warm pool spent without a command; None where that is not known.
    """

    group: str
    capacity: str
    vcpus: float
    gigabytes: float
    seconds: float
    idle_seconds: float | None = 0.0


class CostRow(msgspec.Struct, kw_only=True):
    """The total of a group on one capacity.

    Attributes:
        use: `run`, or `idle` for the time of runners without a command.
        tasks: number of tasks; those of an idle row are also in the row `run`.
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
    idle = min(use.idle_seconds or 0.0, use.seconds)
    group = use.group if len(rows) < MAX_GROUPS or (use.group, use.capacity, "run") in rows else OTHER_GROUPS
    for name, seconds in (("run", use.seconds - idle), ("idle", idle)):
        if name == "run" or seconds > 0:
            row = rows.setdefault((group, use.capacity, name), CostRow(group=group, capacity=use.capacity, use=name))
            row.tasks += 1
            row.vcpu_seconds += seconds * use.vcpus
            row.gb_seconds += seconds * use.gigabytes


class _RunnerTime(msgspec.Struct):
    """What the events of a runner say of its commands. Seconds, by the clock of the ledger.

    Attributes:
        first_ended_at: when its first command had ended; 0: not known.
        busy_seconds: the time of its later commands that have ended.
        since: when its present command was given to it; 0: it has none.
        is_complete: no event is missing so far.
    """

    first_ended_at: float = 0.0
    busy_seconds: float = 0.0
    since: float = 0.0
    is_complete: bool = True


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

    def __init__(self, by: str = "queue") -> None:
        """Group by `queue`, or by the label of this key: `label:KEY`."""
        self._label = by.removeprefix("label:") if by.startswith("label:") else None
        self._rows: dict[tuple[str, str, str], CostRow] = {}
        self._ended = _Recent[None]()
        self._started = _Recent[None]()
        self._runners = _Recent[_RunnerTime]()
        self._unusable = self._idle_unknown = self._unverified = 0

    def add(self, event: JournalEvent) -> None:
        """Add an event; what is none of EVENT_NAMES changes nothing."""
        data = event.data
        if event.name == "decision.poll":
            self._add_poll(event)
        elif event.name == "runner.idle":
            self._end_command(str(data.get("run", "")), data.get("turn"), event.at)
        elif event.name in EVENT_NAMES:
            arn = str(data.get("arn", ""))
            if arn and arn not in self._ended.items:
                self._started.add(arn, None)
            if event.name == "launch.assigned":
                self._runners.add(str(data.get("run", "")), _RunnerTime(is_complete=False)).since = event.at

    def totals(self, prices: Sequence[Price] = ()) -> CostTotals:
        """Return the rows and what they leave out."""
        return CostTotals(
            rows=price_rows(self._rows.values(), prices),
            without_end=len(self._started.items),
            unusable=self._unusable,
            idle_unknown=self._idle_unknown,
            unverified=self._unverified,
        )

    def _end_command(self, run: str, turn: object, at: float) -> None:
        """A runner waits after its command."""
        runner = self._runners.add(run, _RunnerTime(is_complete=turn == 1))
        if turn == 1:
            runner.first_ended_at, runner.is_complete = runner.first_ended_at or at, True
        elif runner.since:
            runner.busy_seconds += max(0.0, at - runner.since)
        elif not runner.first_ended_at:
            runner.is_complete = False
        runner.since = 0.0

    def _add_poll(self, event: JournalEvent) -> None:
        poll_input = event.data.get("poll_input")
        task = _member(poll_input, "task")
        record = _member(poll_input, "record")
        arn = str(event.data.get("arn", ""))
        if not isinstance(task, Mapping) or not isinstance(record, Mapping) or task.get("lastStatus") != "STOPPED":
            return
        if arn in self._ended.items:
            return  # another worker saw the same end, or the same worker saw it again
        self._ended.add(arn, None)
        self._started.items.pop(arn, None)
        self._unverified += event.verified is False
        try:
            use = self._read_use(task, record)
        except (TypeError, ValueError, OverflowError):
            self._unusable += 1
            return
        self._idle_unknown += use.idle_seconds is None
        _add_use(self._rows, use)

    def _read_use(self, task: Mapping[str, Any], record: Mapping[str, Any]) -> TaskUse:
        """Return what the task used; raise an error for a task without a usable size or time."""
        vcpus = _bounded(float(task.get("cpu", "")), _MAX_CPU_UNITS) / 1024
        gigabytes = _bounded(float(task.get("memory", "")), _MAX_MEMORY_MIB) / 1024
        capacity = _capacity(task)
        seconds = _billed_seconds(task, is_fargate=capacity.partition(" ")[0] in PRICED_CAPACITIES)
        run = str(record.get("run") or "")
        idle = self._idle_seconds(run, task, seconds) if run else 0.0
        group = self._group(record)
        return TaskUse(
            group=group, capacity=capacity, vcpus=vcpus, gigabytes=gigabytes, seconds=seconds, idle_seconds=idle
        )

    def _group(self, record: Mapping[str, Any]) -> str:
        if self._label is None:
            return str(record.get("queue") or NO_GROUP)
        labels = record.get("labels")
        found = msgspec.json.decode(labels, type=dict[str, str]) if isinstance(labels, str) and labels else {}
        return found.get(self._label, NO_GROUP)

    def _idle_seconds(self, run: str, task: Mapping[str, Any], seconds: float) -> float | None:
        """Return the task's time without its commands'; a task that ends while it has a command was busy until then."""
        runner = self._runners.items.pop(run, None)
        if runner is None:
            return 0.0  # its first command was its only one
        started, stopped = _time(task, "startedAt"), _time(task, "stoppedAt")
        if not (runner.is_complete and runner.first_ended_at and started and stopped):
            return None
        last = max(0.0, stopped - runner.since) if runner.since else 0.0
        busy = max(0.0, runner.first_ended_at - started) + runner.busy_seconds + last
        return max(0.0, seconds - busy)


def _capacity(task: Mapping[str, Any]) -> str:
    name = str(task.get("capacityProviderName") or task.get("launchType") or "unknown")
    is_windows = str(task.get("platformFamily") or "").lower().startswith("windows")
    return f"{name} windows" if is_windows else name


def _billed_seconds(task: Mapping[str, Any], *, is_fargate: bool) -> float:
    """Return the time that Fargate bills, elsewhere the time from pull to end; 0 of a task that never got so far."""
    stopped = _time(task, "stoppedAt")
    if not stopped:
        raise ValueError("no stoppedAt")
    began = _time(task, "pullStartedAt") or _time(task, "startedAt")
    if not began:
        return 0.0
    seconds = max(0.0, stopped - began)
    return max(MIN_BILLED_SECONDS, float(math.ceil(seconds))) if is_fargate else seconds


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
