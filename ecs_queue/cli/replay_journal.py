"""`replay FILE`: an exported journal, decided again or submitted again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.event_view import format_timestamp_ms
from ecs_queue.cli.ui.options import SharedOptions, open_client
from ecs_queue.cli.ui.output import format_duration, print_fields, print_json, print_stderr, print_stdout, truncate
from ecs_queue.errors import EcsQueueError, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.replay.decisions import DecisionDifference, DecisionReplay
    from ecs_queue.replay.traffic import RecordedRequest, Traffic, TrafficReplay

EXIT_DIFFERENT = 1
_MAX_VALUE_LENGTH = 400


def replay_offline(file: str, as_json: bool) -> int:
    """Decide again what the file's journal says was decided; 0 when all of it is identical, else 1.

    UsageError for a file that is no journal, is empty, or has no decisions.
    """
    from ecs_queue.journal.jsonl import InvalidJournalFile, read_events
    from ecs_queue.replay.decisions import replay_decisions

    report = replay_decisions(read_events(file, print_stderr))
    if not report.decision_count:
        raise InvalidJournalFile(
            f"{file} has {report.event_count} events and no decision among them: export the whole journal"
        )
    if as_json:
        print_json(_report_to_dict(report))
    else:
        _print_report(report)
    return 0 if report.difference is None else EXIT_DIFFERENT


def replay_traffic(
    options: SharedOptions, file: str, speed: float, dry_run: bool, confirmed: str | None, as_json: bool
) -> int:
    """Submit the file's requests again in their rhythm, `speed` times as fast, as new ones.

    UsageError for a file without requests, a bad speed, or a namespace that may be production and is not `confirmed`.
    """
    from ecs_queue.config.keyring import open_keyring
    from ecs_queue.journal.jsonl import InvalidJournalFile, read_events
    from ecs_queue.replay.traffic import read_traffic

    if not (math.isfinite(speed) and speed > 0):
        raise UsageError(f"replay: --speed: expected a number above 0, found {speed:g}")
    traffic = read_traffic(read_events(file, print_stderr), open_keyring(options.load_config()))
    if not traffic.requests:
        why = f"; {traffic.unreadable_count} are sealed or of another version" if traffic.unreadable_count else ""
        raise InvalidJournalFile(f"{file} has no request that could be submitted again{why}")
    with open_client(options) as queue:
        if not dry_run:
            _reject_production(queue.config.namespace, confirmed)
        plan = _traffic_summary(queue, traffic, speed)
        _check_all(queue, traffic)
        if dry_run:
            _print_traffic_summary(plan, as_json)
            return 0
        _print_omissions(traffic)
        played = _play_traffic(queue, traffic, speed)
    if as_json:
        print_json(
            {
                **plan,
                "submitted": played.submitted_count,
                "took": played.duration_seconds,
                "late": played.max_lag_seconds,
            }
        )
    else:
        took, late = format_duration(played.duration_seconds), format_duration(played.max_lag_seconds)
        print_stdout(f"{played.submitted_count} requests submitted in {took}, the latest {late} behind its time")
    return 0


def _reject_production(namespace: str, confirmed: str | None) -> None:
    from ecs_queue.replay.traffic import is_test_namespace

    if confirmed is not None and confirmed != namespace:
        raise UsageError(f"replay: --yes-i-mean names {confirmed}, the namespace is {namespace}; nothing was submitted")
    if confirmed is None and not is_test_namespace(namespace):
        raise UsageError(
            f"replay: namespace {namespace} may be production, for its name does not say test, dev, staging or the "
            f"like: take another --namespace, or give --yes-i-mean {namespace}; nothing was submitted"
        )


def _check_all(queue: EcsQueue, traffic: Traffic) -> None:
    """Every request is checked before the first is submitted."""
    for arrival in traffic.requests:
        try:
            queue.prepare(_task_line(arrival), origin=arrival.id)
        except EcsQueueError as error:
            raise type(error)(f"{arrival.id}: {error}; nothing was submitted") from None


def _task_line(arrival: RecordedRequest) -> dict[str, Any]:
    import secrets

    from ecs_queue.runtask.resubmit import build_resubmit_id

    return {"id": build_resubmit_id(arrival.id, secrets.token_hex(4)), **arrival.task}


def _play_traffic(queue: EcsQueue, traffic: Traffic, speed: float) -> TrafficReplay:
    from ecs_queue.replay.traffic import submit_traffic

    submitted = 0

    def submit(batch: Sequence[RecordedRequest]) -> None:
        nonlocal submitted
        # Made only now, for a request's times count from its submission.
        queue.send([queue.prepare(_task_line(arrival), origin=arrival.id) for arrival in batch])
        submitted += len(batch)

    queue.check()
    try:
        return submit_traffic(traffic.requests, speed, submit, time.monotonic, time.sleep)
    except (EcsQueueError, KeyboardInterrupt):
        print_stderr(f"replay: {submitted} of {len(traffic.requests)} requests were submitted, and they go on")
        raise


def _traffic_summary(queue: EcsQueue, traffic: Traffic, speed: float) -> dict[str, Any]:
    return {
        "namespace": queue.config.namespace,
        "requests": len(traffic.requests),
        "queues": traffic.queue_counts,
        "recorded_seconds": round(traffic.duration_seconds, 3),
        "speed": speed,
        "seconds": round(traffic.duration_seconds / speed, 3),
        "redacted": traffic.redacted_count,
        "unreadable": traffic.unreadable_count,
    }


def _print_traffic_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({**summary, "dry_run": True})
        return
    queues = ", ".join(f"{queue} {number}" for queue, number in sorted(summary["queues"].items()))
    recorded, replayed = format_duration(summary["recorded_seconds"]), format_duration(summary["seconds"])
    stretch = f"{recorded}, at {summary['speed']:g} times the speed {replayed}"
    print_fields(
        [
            ("namespace", summary["namespace"]),
            ("requests", f"{summary['requests']} ({queues})"),
            ("recorded in", stretch),
            ("with hidden secrets", str(summary["redacted"] or "")),
            (
                "left out",
                f"{summary['unreadable']} that are sealed or of another version" if summary["unreadable"] else "",
            ),
        ]
    )
    print_stderr("dry run: nothing was submitted")


def _print_omissions(traffic: Traffic) -> None:
    if traffic.redacted_count:
        print_stderr(
            f"replay: in {traffic.redacted_count} requests stands [redacted], for the journal does not keep secrets"
        )
    if traffic.unreadable_count:
        print_stderr(f"replay: {traffic.unreadable_count} requests are left out, they are sealed or of another version")


def _report_to_dict(report: DecisionReplay) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(report)
    return {"identical": report.difference is None, "compared": report.decision_count, **built}


def _print_report(report: DecisionReplay) -> None:
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(report.decision_counts.items()))
    if report.difference is None:
        print_stdout(f"identical: {report.decision_count} decisions about {report.request_count} requests ({kinds})")
        return
    print_stdout(
        f"different: decision {report.decision_count} of those in the file is the first that would not be the same now"
    )
    _print_difference(report.difference)


def _print_difference(difference: DecisionDifference) -> None:
    recorded, now = _only_differences(difference.recorded, difference.replayed)
    print_fields(
        [
            ("request", difference.id),
            ("event", f"{difference.seq} ({difference.event}, {format_timestamp_ms(difference.at)})"),
            ("rule", difference.rule),
            ("recorded", truncate(json.dumps(recorded), _MAX_VALUE_LENGTH)),
            ("now", truncate(json.dumps(now), _MAX_VALUE_LENGTH)),
        ]
    )


def _only_differences(recorded: Any, now: Any) -> tuple[Any, Any]:
    """Of two objects only the members that differ."""
    if not (isinstance(recorded, dict) and isinstance(now, dict)):
        return recorded, now
    names = [name for name in recorded if recorded[name] != now.get(name)]
    return {name: recorded[name] for name in names}, {name: now.get(name) for name in names}
