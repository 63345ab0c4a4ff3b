"""A record as people and machines may see it: every fact but the payload, for commands may hold secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.output import format_duration

if TYPE_CHECKING:
    from ecs_queue.protocol.record import Record

#: An end that has no exit code of its own.
EXIT_WITHOUT_CODE = 1


def record_to_dict(record: Record) -> dict[str, Any]:
    """JSON-ready; times are RFC 3339 in UTC, durations seconds, None is "never" or "not known".

    `attempts`: made in all once it has ended, before that the number of the present one. `waited_seconds`: from
    its submission to the launch; `ran_seconds`: from the start of its container to the end.
    """
    return {
        "id": record.id,
        "state": str(record.state.value),
        "queue": record.queue,
        "attempts": record.attempts if record.is_terminal else record.attempt,
        "launch": record.launch,
        "status": record.last_status or None,
        "exit_code": record.exit_code,
        "task_arn": record.arn or None,
        "reason": record.reason,
        "stop_code": record.stop_code or None,
        "stop_requested_by": record.stop_requested_by or None,
        "worker": record.worker or None,
        "owner": record.owner or None,
        "relaunch": record.relaunch,
        "time_limit": record.time_limit or None,
        "queued_at": format_timestamp(record.created_at),
        "not_before": format_timestamp(record.not_before),
        "expires_at": format_timestamp(record.expires_at),
        "launched_at": format_timestamp(record.launched_at),
        "started_at": format_timestamp(record.started_at),
        "stop_requested_at": format_timestamp(record.stop_requested_at),
        "finished_at": format_timestamp(record.finished_at),
        "waited_seconds": _seconds_between(record.created_at, record.launched_at),
        "ran_seconds": _seconds_between(record.started_at, record.finished_at),
    }


def record_lines(record: Record, now: float) -> list[tuple[str, str]]:
    """The same for people: names and values. `now`: the ledger's clock."""
    facts = record_to_dict(record)
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    stop = (
        f"asked for by {record.stop_requested_by} at {_without_fraction(facts['stop_requested_at'])}"
        if record.stop_requested_at
        else ""
    )
    retry = (
        f"{_without_fraction(facts['not_before'])}, {_time_until(record.not_before, now)}"
        if record.not_before > now
        else ""
    )
    waits = not record.is_terminal and not record.launched_at
    return [
        ("id", record.id),
        ("state", facts["state"]),
        ("queue", record.queue),
        ("exit code", exit_code),
        ("attempts", str(facts["attempts"])),
        ("launches", str(record.launch) if record.launch > 1 else ""),
        ("task", record.arn),
        ("ECS status", "" if record.is_terminal else record.last_status),
        ("reason", record.reason),
        ("stop code", record.stop_code),
        ("stop", stop),
        ("next attempt", retry if record.not_before > now and not record.is_terminal else ""),
        ("queued", _with_duration(facts["queued_at"], now - record.created_at, "ago")),
        ("launched", _with_duration(facts["launched_at"], facts["waited_seconds"], "after it was queued")),
        (
            "started",
            _with_duration(facts["started_at"], _seconds_between(record.launched_at, record.started_at), "later"),
        ),
        ("finished", _with_duration(facts["finished_at"], facts["ran_seconds"], "after its start")),
        (
            "expires",
            f"{_without_fraction(facts['expires_at'])}, {_time_until(record.expires_at, now)}" if waits else "",
        ),
        ("time limit", format_duration(record.time_limit) if record.time_limit else ""),
        ("relaunch", record.relaunch),
        ("worker", record.worker),
    ]


def format_age(record: Record, now: float) -> str:
    """How long ago it was queued."""
    return format_duration(now - record.created_at)


def format_run_time(record: Record, now: float) -> str:
    """How long its container ran, or has been running."""
    if not record.started_at:
        return ""
    return format_duration((record.finished_at or now) - record.started_at)


def ran_to_exit(state: str, exit_code: int | None) -> bool:
    """Whether the exit code says it all: the program ran to its own end."""
    return state in ("SUCCESS", "FAILED") and exit_code is not None


def exit_status_for(result_line: Mapping[str, Any]) -> int:
    """The exit status that repeats a task's own: its exit code; 1 when it has none, or failed in spite of a 0."""
    if result_line["state"] == "SUCCESS":
        return 0
    code = result_line["exit_code"]
    return code if code is not None and 0 < code < 256 else EXIT_WITHOUT_CODE


def format_timestamp(epoch_seconds: float) -> str | None:
    """RFC 3339 in UTC, as in result lines; None for 0."""
    import msgspec

    from ecs_queue.messages.envelope import to_datetime

    shown: str | None = msgspec.to_builtins(to_datetime(epoch_seconds))
    return shown


def _without_fraction(timestamp: str | None) -> str:
    """To the second."""
    return "" if timestamp is None else re.sub(r"\.\d+Z$", "Z", timestamp)


def _seconds_between(start: float, end: float) -> float | None:
    return round(max(0.0, end - start), 3) if start and end else None


def _with_duration(timestamp: str | None, seconds: float | None, suffix: str) -> str:
    shown = _without_fraction(timestamp)
    return shown if seconds is None or not shown else f"{shown}, {format_duration(seconds)} {suffix}"


def _time_until(timestamp: float, now: float) -> str:
    return f"in {format_duration(timestamp - now)}" if timestamp > now else "now"
