"""A record as people and machines may see it: every fact but the payload, for commands may hold secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.output import duration

if TYPE_CHECKING:
    from ecs_queue.core.record import Record

#: An end that has no exit code of its own.
NO_EXIT_CODE = 1


def facts_of(record: Record) -> dict[str, Any]:
    """JSON-ready; times are RFC 3339 in UTC, durations seconds, None is "never" or "not known".

    `attempts`: made in all once it has ended, before that the number of the present one. `waited_seconds`: from
    its submission to the launch; `ran_seconds`: from the start of its container to the end.
    """
    return {
        "id": record.id,
        "state": str(record.state.value),
        "queue": record.queue,
        "attempts": record.attempts if record.ended else record.attempt,
        "launch": record.launch,
        "status": record.last_status or None,
        "exit_code": record.exit_code,
        "task_arn": record.arn or None,
        "reason": record.reason,
        "stop_code": record.stop_code or None,
        "stop_requested_by": record.stop_by or None,
        "worker": record.worker or None,
        "owner": record.owner or None,
        "relaunch": record.relaunch,
        "time_limit": record.time_limit or None,
        "queued_at": moment_text(record.created_at),
        "not_before": moment_text(record.not_before),
        "expires_at": moment_text(record.expires_at),
        "launched_at": moment_text(record.launched_at),
        "started_at": moment_text(record.started_at),
        "stop_requested_at": moment_text(record.stop_at),
        "finished_at": moment_text(record.finished_at),
        "waited_seconds": _between(record.created_at, record.launched_at),
        "ran_seconds": _between(record.started_at, record.finished_at),
    }


def lines_of(record: Record, now: float) -> list[tuple[str, str]]:
    """The same for people: names and values. `now`: the ledger's clock."""
    facts = facts_of(record)
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    stop = f"asked for by {record.stop_by} at {_for_people(facts['stop_requested_at'])}" if record.stop_at else ""
    retry = (
        f"{_for_people(facts['not_before'])}, {_from_now(record.not_before, now)}" if record.not_before > now else ""
    )
    waits = not record.ended and not record.launched_at
    return [
        ("id", record.id),
        ("state", facts["state"]),
        ("queue", record.queue),
        ("exit code", exit_code),
        ("attempts", str(facts["attempts"])),
        ("launches", str(record.launch) if record.launch > 1 else ""),
        ("task", record.arn),
        ("ECS status", "" if record.ended else record.last_status),
        ("reason", record.reason),
        ("stop code", record.stop_code),
        ("stop", stop),
        ("next attempt", retry if record.not_before > now and not record.ended else ""),
        ("queued", _since(facts["queued_at"], now - record.created_at, "ago")),
        ("launched", _since(facts["launched_at"], facts["waited_seconds"], "after it was queued")),
        ("started", _since(facts["started_at"], _between(record.launched_at, record.started_at), "later")),
        ("finished", _since(facts["finished_at"], facts["ran_seconds"], "after its start")),
        ("expires", f"{_for_people(facts['expires_at'])}, {_from_now(record.expires_at, now)}" if waits else ""),
        ("time limit", duration(record.time_limit) if record.time_limit else ""),
        ("relaunch", record.relaunch),
        ("worker", record.worker),
    ]


def age_of(record: Record, now: float) -> str:
    """How long ago it was queued."""
    return duration(now - record.created_at)


def run_time_of(record: Record, now: float) -> str:
    """How long its container ran, or has been running."""
    if not record.started_at:
        return ""
    return duration((record.finished_at or now) - record.started_at)


def is_usual(state: str, exit_code: int | None) -> bool:
    """Whether the exit code says it all: the program ran to its own end."""
    return state in ("SUCCESS", "FAILED") and exit_code is not None


def exit_status_of(line: Mapping[str, Any]) -> int:
    """The exit status that repeats a task's own: its exit code; 1 when it has none, or failed in spite of a 0."""
    if line["state"] == "SUCCESS":
        return 0
    code = line["exit_code"]
    return code if code is not None and 0 < code < 256 else NO_EXIT_CODE


def moment_text(epoch_seconds: float) -> str | None:
    """RFC 3339 in UTC, as in result lines; None for 0."""
    import msgspec

    from ecs_queue.core.envelope import moment

    shown: str | None = msgspec.to_builtins(moment(epoch_seconds))
    return shown


def _for_people(moment: str | None) -> str:
    """To the second."""
    return "" if moment is None else re.sub(r"\.\d+Z$", "Z", moment)


def _between(start: float, end: float) -> float | None:
    return round(max(0.0, end - start), 3) if start and end else None


def _since(moment: str | None, seconds: float | None, words: str) -> str:
    shown = _for_people(moment)
    return shown if seconds is None or not shown else f"{shown}, {duration(seconds)} {words}"


def _from_now(moment: float, now: float) -> str:
    return f"in {duration(moment - now)}" if moment > now else "now"
