"""`replay FILE`: an exported journal, decided again or submitted again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.eventview import moment_of
from ecs_queue.cli.options import Options, opened_queue
from ecs_queue.cli.output import duration, say, shortened, show, show_json, show_pairs
from ecs_queue.errors import EcsQueueError, UsageError

if TYPE_CHECKING:
    from ecs_queue.client import EcsQueue
    from ecs_queue.journal.offline import Difference, Report
    from ecs_queue.journal.traffic import Arrival, Played, Traffic

DIFFERENT = 1
_LONGEST = 400


def replay_offline(file: str, as_json: bool) -> int:
    """Decide again what the file's journal says was decided; 0 when all of it is identical, else 1.

    UsageError for a file that is no journal, is empty, or has no decisions.
    """
    from ecs_queue.journal.export import UnusableFile, read_events
    from ecs_queue.journal.offline import replay

    report = replay(read_events(file, say))
    if not report.compared:
        raise UnusableFile(f"{file} has {report.events} events and no decision among them: export the whole journal")
    if as_json:
        show_json(_object_of(report))
    else:
        _show_report(report)
    return 0 if report.difference is None else DIFFERENT


def replay_traffic(
    options: Options, file: str, speed: float, dry_run: bool, confirmed: str | None, as_json: bool
) -> int:
    """Submit the file's requests again in their rhythm, `speed` times as fast, as new ones.

    UsageError for a file without requests, a bad speed, or a namespace that may be production and is not `confirmed`.
    """
    from ecs_queue.journal.export import UnusableFile, read_events
    from ecs_queue.journal.traffic import traffic_of
    from ecs_queue.keyring import open_keyring

    if not (math.isfinite(speed) and speed > 0):
        raise UsageError(f"replay: --speed: expected a number above 0, found {speed:g}")
    traffic = traffic_of(read_events(file, say), open_keyring(options.load()))
    if not traffic.arrivals:
        why = f"; {traffic.unreadable} are sealed or of another version" if traffic.unreadable else ""
        raise UnusableFile(f"{file} has no request that could be submitted again{why}")
    with opened_queue(options) as queue:
        if not dry_run:
            _refuse_production(queue.config.namespace, confirmed)
        plan = _plan_of(queue, traffic, speed)
        _check(queue, traffic)
        if dry_run:
            _show_plan(plan, as_json)
            return 0
        _tell_hidden(traffic)
        played = _play(queue, traffic, speed)
    if as_json:
        show_json({**plan, "submitted": played.submitted, "took": played.seconds, "late": played.late})
    else:
        took, late = duration(played.seconds), duration(played.late)
        show(f"{played.submitted} requests submitted in {took}, the latest {late} behind its time")
    return 0


def _refuse_production(namespace: str, confirmed: str | None) -> None:
    from ecs_queue.journal.traffic import is_test_namespace

    if confirmed is not None and confirmed != namespace:
        raise UsageError(f"replay: --yes-i-mean names {confirmed}, the namespace is {namespace}; nothing was submitted")
    if confirmed is None and not is_test_namespace(namespace):
        raise UsageError(
            f"replay: namespace {namespace} may be production, for its name does not say test, dev, staging or the "
            f"like: take another --namespace, or give --yes-i-mean {namespace}; nothing was submitted"
        )


def _check(queue: EcsQueue, traffic: Traffic) -> None:
    """Every request is checked before the first is submitted."""
    for arrival in traffic.arrivals:
        try:
            queue.prepare(_line_of(arrival), origin=arrival.id)
        except EcsQueueError as error:
            raise type(error)(f"{arrival.id}: {error}; nothing was submitted") from None


def _line_of(arrival: Arrival) -> dict[str, Any]:
    import secrets

    from ecs_queue.core.again import again_id

    return {"id": again_id(arrival.id, secrets.token_hex(4)), **arrival.line}


def _play(queue: EcsQueue, traffic: Traffic, speed: float) -> Played:
    from ecs_queue.journal.traffic import play

    submitted = 0

    def submit(batch: Sequence[Arrival]) -> None:
        nonlocal submitted
        # Made only now, for a request's times count from its submission.
        queue.send([queue.prepare(_line_of(arrival), origin=arrival.id) for arrival in batch])
        submitted += len(batch)

    queue.check()
    try:
        return play(traffic.arrivals, speed, submit, time.monotonic, time.sleep)
    except (EcsQueueError, KeyboardInterrupt):
        say(f"replay: {submitted} of {len(traffic.arrivals)} requests were submitted, and they go on")
        raise


def _plan_of(queue: EcsQueue, traffic: Traffic, speed: float) -> dict[str, Any]:
    return {
        "namespace": queue.config.namespace,
        "requests": len(traffic.arrivals),
        "queues": traffic.queues,
        "recorded_seconds": round(traffic.seconds, 3),
        "speed": speed,
        "seconds": round(traffic.seconds / speed, 3),
        "redacted": traffic.hidden,
        "unreadable": traffic.unreadable,
    }


def _show_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json({**plan, "dry_run": True})
        return
    queues = ", ".join(f"{queue} {number}" for queue, number in sorted(plan["queues"].items()))
    stretch = f"{duration(plan['recorded_seconds'])}, at {plan['speed']:g} times the speed {duration(plan['seconds'])}"
    show_pairs(
        [
            ("namespace", plan["namespace"]),
            ("requests", f"{plan['requests']} ({queues})"),
            ("recorded in", stretch),
            ("with hidden secrets", str(plan["redacted"] or "")),
            ("left out", f"{plan['unreadable']} that are sealed or of another version" if plan["unreadable"] else ""),
        ]
    )
    say("dry run: nothing was submitted")


def _tell_hidden(traffic: Traffic) -> None:
    if traffic.hidden:
        say(f"replay: in {traffic.hidden} requests stands [redacted], for the journal does not keep secrets")
    if traffic.unreadable:
        say(f"replay: {traffic.unreadable} requests are left out, they are sealed or of another version")


def _object_of(report: Report) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(report)
    return {"identical": report.difference is None, "compared": report.compared, **built}


def _show_report(report: Report) -> None:
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(report.decisions.items()))
    if report.difference is None:
        show(f"identical: {report.compared} decisions about {report.requests} requests ({kinds})")
        return
    show(f"different: decision {report.compared} of those in the file is the first that would not be the same now")
    _show_difference(report.difference)


def _show_difference(found: Difference) -> None:
    recorded, now = _differing(found.recorded, found.now)
    show_pairs(
        [
            ("request", found.id),
            ("event", f"{found.seq} ({found.event}, {moment_of(found.at)})"),
            ("rule", found.rule),
            ("recorded", shortened(json.dumps(recorded), _LONGEST)),
            ("now", shortened(json.dumps(now), _LONGEST)),
        ]
    )


def _differing(recorded: Any, now: Any) -> tuple[Any, Any]:
    """Of two objects only the members that differ."""
    if not (isinstance(recorded, dict) and isinstance(now, dict)):
        return recorded, now
    names = [name for name in recorded if recorded[name] != now.get(name)]
    return {name: recorded[name] for name in names}, {name: now.get(name) for name in names}
