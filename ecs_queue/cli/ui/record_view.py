"""Shows every fact of a record except its command and environment: they may hold secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.durations import format_duration, format_timestamp
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.client.records import decode_labels

if TYPE_CHECKING:
    from ecs_queue.protocol.record import Record


_NONE: Mapping[str, float] = {}


def record_to_dict(record: Record) -> dict[str, Any]:
    """Return the facts JSON-ready: times are RFC 3339 in UTC, durations are seconds, None means never or unknown.

    `attempts` is the number of attempts made so far, 0 before the first launch. `waited_seconds` count from the
    submission to the launch, `ran_seconds` from the start of the container to the end.
    """
    return {
        "id": record.id,
        "state": str(record.state.value),
        "queue": record.queue,
        "attempts": record.attempts_made,
        "launch": record.launch,
        "status": record.last_status or None,
        "exit_code": record.exit_code,
        "task_arn": record.arn or None,
        "runner": record.run or None,
        "reason": record.reason,
        "stop_code": record.stop_code or None,
        "labels": decode_labels(record),
        "concurrency_key": record.concurrency_key or None,
        "submitted_by": record.submitted_by or None,
        "stop_requested_by": record.stop_requested_by or None,
        "worker": record.worker or None,
        "owner": record.owner or None,
        "relaunch": record.relaunch,
        "time_limit": record.time_limit or None,
        "start_timeout": record.start_timeout or None,
        "retry_rules": json.loads(record.retry_rules) if record.retry_rules else None,
        "capacity_variant": record.variant or None,
        "capacity_variant_reason": record.variant_reason or None,
        "queued_at": format_timestamp(record.created_at),
        "not_before": format_timestamp(record.not_before),
        "delayed_until": format_timestamp(record.delayed_until),
        "expires_at": format_timestamp(record.expires_at),
        "launched_at": format_timestamp(record.launched_at),
        "started_at": format_timestamp(record.started_at),
        "stop_requested_at": format_timestamp(record.stop_requested_at),
        "finished_at": format_timestamp(record.finished_at),
        "waited_seconds": _seconds_between(record.created_at, record.launched_at),
        "ran_seconds": _seconds_between(record.started_at, record.finished_at),
    }


def record_lines(
    record: Record, now: float, paused: Mapping[str, float] = _NONE, waits_for: str = ""
) -> list[tuple[str, str]]:
    """Return the facts for people, as names and values.

    `now` is the ledger's clock, seconds since the epoch; `paused` has the paused queues and since when.
    `waits_for` is the limit of its queue that it waits for, if any.
    """
    facts = record_to_dict(record)
    start_delay = _seconds_between(record.launched_at, record.started_at)
    stop = f"requested by {record.stop_requested_by} at {_without_fraction(facts['stop_requested_at'])}"
    is_delayed = record.delayed_until > now and not record.is_terminal
    waits_for_retry = record.not_before > now and not (record.is_terminal or is_delayed or record.waits_for_key)
    may_expire = not record.is_terminal and not record.launched_at
    return [
        ("id", record.id),
        ("state", facts["state"]),
        ("queue", record.queue),
        ("exit code", "" if record.exit_code is None else str(record.exit_code)),
        ("attempts", str(facts["attempts"])),
        ("launches", str(record.launch) if record.launch > 1 else ""),
        ("task", record.arn),
        ("runner", record.run),
        ("ECS status", "" if record.is_terminal else record.last_status),
        ("reason", record.reason),
        ("paused", _pause_text(record, now, paused)),
        ("waits for", waits_for),
        ("stop code", record.stop_code),
        ("stop", stop if record.stop_requested_at else ""),
        ("delayed until", _with_time_until(facts["delayed_until"], record.delayed_until, now) if is_delayed else ""),
        ("next attempt", _with_time_until(facts["not_before"], record.not_before, now) if waits_for_retry else ""),
        ("queued", _with_duration(facts["queued_at"], now - record.created_at, "ago")),
        ("submitted by", record.submitted_by),
        ("labels", ", ".join(f"{key}={value}" for key, value in facts["labels"].items())),
        ("key", record.concurrency_key),
        ("launched", _with_duration(facts["launched_at"], facts["waited_seconds"], "after it was queued")),
        ("started", _with_duration(facts["started_at"], start_delay, "later")),
        ("finished", _with_duration(facts["finished_at"], facts["ran_seconds"], "after its start")),
        ("expires", _with_time_until(facts["expires_at"], record.expires_at, now) if may_expire else ""),
        ("time limit", format_duration(record.time_limit) if record.time_limit else ""),
        ("start timeout", format_duration(record.start_timeout) if record.start_timeout else ""),
        ("retry rules", record.retry_rules),
        ("capacity", _capacity_text(record)),
        ("relaunch", record.relaunch),
        ("worker", record.worker),
    ]


def format_run_time(record: Record, now: float) -> str:
    """Return how long the container ran, or has been running; "" before its start."""
    return format_duration((record.finished_at or now) - record.started_at) if record.started_at else ""


def ran_to_exit(state: str, exit_code: int | None) -> bool:
    """Return whether the program ran to its end, so that its exit code says it all."""
    return state in ("SUCCESS", "FAILED") and exit_code is not None


def exit_status_for(result_line: Mapping[str, Any]) -> int:
    """Return the task's exit code as an exit status; 1 when it has none, or failed although it exited with 0."""
    if result_line["state"] == "SUCCESS":
        return 0
    code = result_line["exit_code"]
    return code if code is not None and 0 < code < 256 else EXIT_FAILURE


def _pause_text(record: Record, now: float, paused: Mapping[str, float]) -> str:
    if record.state.value != "QUEUED" or record.queue not in paused:
        return ""
    since = format_duration(now - paused[record.queue])
    return f"its queue is paused for {since}: `ecs-queue queues resume {record.queue}`"


def _capacity_text(record: Record) -> str:
    if not record.variant:
        return ""
    return f"variant {record.variant}" + (f", {record.variant_reason}" if record.variant_reason else "")


def _without_fraction(timestamp: str | None) -> str:
    return "" if timestamp is None else re.sub(r"\.\d+Z$", "Z", timestamp)


def _seconds_between(start: float, end: float) -> float | None:
    return round(max(0.0, end - start), 3) if start and end else None


def _with_duration(timestamp: str | None, seconds: float | None, suffix: str) -> str:
    shown = _without_fraction(timestamp)
    return shown if seconds is None or not shown else f"{shown}, {format_duration(seconds)} {suffix}"


def _with_time_until(timestamp: str | None, epoch_seconds: float, now: float) -> str:
    remaining = epoch_seconds - now
    return f"{_without_fraction(timestamp)}, {f'in {format_duration(remaining)}' if remaining > 0 else 'now'}"
