"""`replay FILE`: repeats the decisions or the traffic of an exported journal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.durations import format_duration, format_timestamp_ms
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, open_client
from ecs_queue.cli.ui.output import describe_number, print_fields, print_json, print_stderr, print_stdout, truncate
from ecs_queue.error_text import error_text
from ecs_queue.errors import EcsQueueError, InvalidRequest, LedgerUnavailable, PermanentError, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.producer import PreparedRequest
    from ecs_queue.replay.decisions import DecisionDifference, DecisionReplay
    from ecs_queue.replay.traffic import RecordedRequest, Traffic, TrafficReplay

_MAX_VALUE_LENGTH = 400
#: How many requests that are not valid are named.
_MAX_PROBLEMS = 5


def replay_offline(file: str, as_json: bool) -> int:
    """Make the decisions of the file again, and return 0 when all are identical, otherwise 1.

    Raises:
        UsageError: The file is no journal, is empty, or has no decisions.
    """
    from ecs_queue.journal.jsonl import InvalidJournalFile, read_events
    from ecs_queue.replay.decisions import replay_decisions

    report = replay_decisions(read_events(file, print_stderr))
    if not report.decision_count:
        raise InvalidJournalFile(
            f"{file} has {report.event_count} events and no decision among them: export the whole journal"
        )
    if as_json:
        import msgspec

        facts = {"identical": report.difference is None, "compared": report.decision_count}
        print_json({**facts, **msgspec.to_builtins(report)})
    else:
        _print_report(report)
    return 0 if report.difference is None else EXIT_FAILURE


@dataclass(frozen=True)
class TrafficChoices:
    """How recorded traffic is submitted. `confirmed` is the namespace that the user confirmed."""

    speed: float
    dry_run: bool
    confirmed: str | None
    trust_unsigned: bool


def replay_traffic(options: SharedOptions, file: str, choices: TrafficChoices, as_json: bool) -> int:
    """Submit the file's requests as new ones in their rhythm, `speed` times as fast.

    Raises:
        UsageError: The file has no requests, the speed is not valid, or the namespace may be production and is not
            `confirmed`.
        UnverifiedJournal: Signing keys are set, and verify no request of the file.
    """
    if not (math.isfinite(choices.speed) and choices.speed > 0):
        raise UsageError(f"replay: --speed: expected a number above 0, found {choices.speed:g}")
    traffic = _read_file(options, file, choices.trust_unsigned)
    with open_client(options) as client:
        if not choices.dry_run:
            _reject_production(client.config.namespace, choices.confirmed)
        traffic, invalid_count = _leave_out_invalid(client, traffic)
        summary = {**_traffic_summary(client, traffic, choices.speed), "invalid": invalid_count}
        status = EXIT_FAILURE if invalid_count or traffic.unverified_count else 0
        if choices.dry_run:
            _print_traffic_summary(summary, as_json)
            return status
        if traffic.redacted_count:
            print_stderr(
                f"replay: {describe_number(traffic.redacted_count, 'request')} with [redacted] in place of secrets"
            )
        for problem in _left_out(traffic):
            print_stderr(f"replay: {problem}")
        result = _submit_traffic(client, traffic, choices.speed)
    if as_json:
        times = {"took": result.duration_seconds, "late": result.max_lag_seconds}
        print_json({**summary, "submitted": result.submitted_count, **times})
    else:
        took, lag = format_duration(result.duration_seconds), format_duration(result.max_lag_seconds)
        print_stdout(f"{describe_number(result.submitted_count, 'request')} submitted in {took}, at most {lag} late")
    return status


def _read_file(options: SharedOptions, file: str, trust_unsigned: bool) -> Traffic:
    from ecs_queue.config.keyring import open_keyring
    from ecs_queue.journal.batches import UnverifiedJournal, unverified_message
    from ecs_queue.journal.jsonl import InvalidJournalFile, read_events
    from ecs_queue.replay.traffic import read_traffic

    config = options.load_config()
    keyring = open_keyring(config)
    events = read_events(file, print_stderr, keyring, config.journal_element_bytes)
    traffic = read_traffic(events, keyring, trust_unsigned=trust_unsigned)
    if not traffic.requests and traffic.unverified_count:
        raise UnverifiedJournal(unverified_message(file))
    if not traffic.requests:
        why = "".join(f"; {problem}" for problem in _left_out(traffic))
        raise InvalidJournalFile(f"{file} has no request that could be submitted again{why}")
    return traffic


def _left_out(traffic: Traffic) -> Iterator[str]:
    if traffic.unreadable_count:
        yield f"{describe_number(traffic.unreadable_count, 'request')} left out: encrypted, or of another version"
    if traffic.unverified_count:
        yield (
            f"{describe_number(traffic.unverified_count, 'request')} left out: not signed with a key of signing_keys "
            "(--trust-unsigned)"
        )


def _reject_production(namespace: str, confirmed: str | None) -> None:
    from ecs_queue.replay.traffic import is_test_namespace

    if confirmed is not None and confirmed != namespace:
        raise UsageError(f"replay: --yes-i-mean names {confirmed}, the namespace is {namespace}; nothing was submitted")
    if confirmed is None and not is_test_namespace(namespace):
        raise UsageError(
            f"replay: namespace {namespace} may be production, its name does not contain test, dev, staging or the "
            f"like: choose another --namespace, or give --yes-i-mean {namespace}; nothing was submitted"
        )


def _leave_out_invalid(client: EcsQueue, traffic: Traffic) -> tuple[Traffic, int]:
    """Return the requests that could be launched here, and the number of the others, which stderr names.

    Raises:
        InvalidRequest: None could be launched.
        ConfigError: The profile of a queue is incomplete.
    """
    import msgspec

    valid, problems = [], []
    for request in traffic.requests:
        try:
            _prepare(client, request)
        except PermanentError as error:
            problems.append(f"{request.id}: {error}")
        except EcsQueueError as error:
            raise type(error)(f"{request.id}: {error}; nothing was submitted") from None
        else:
            valid.append(request)
    if problems and not valid:
        raise InvalidRequest(
            f"{problems[0]}; of {describe_number(len(problems), 'request')} none is valid, nothing was submitted"
        )
    for problem in problems[:_MAX_PROBLEMS]:
        print_stderr(f"replay: left out: {problem}")
    if len(problems) > _MAX_PROBLEMS:
        more = describe_number(len(problems) - _MAX_PROBLEMS, "more request")
        print_stderr(f"replay: left out: {more}, not valid")
    return msgspec.structs.replace(traffic, requests=valid), len(problems)


def _prepare(client: EcsQueue, request: RecordedRequest) -> PreparedRequest:
    import secrets

    from ecs_queue.runtask.resubmit import build_resubmit_id

    task = {"id": build_resubmit_id(request.id, secrets.token_hex(4)), **request.task}
    return client.prepare(task, origin=request.id)


def _submit_traffic(client: EcsQueue, traffic: Traffic, speed: float) -> TrafficReplay:
    from ecs_queue.cli.ui.submitter import SubmissionUnfinished
    from ecs_queue.replay.traffic import submit_traffic

    submitted = 0

    def submit(batch: Sequence[RecordedRequest]) -> None:
        nonlocal submitted
        client.send([_prepare(client, request) for request in batch])  # the times of a request count from now
        submitted += len(batch)

    client.check()
    try:
        return submit_traffic(traffic.requests, speed, submit, time.monotonic, time.sleep)
    except (EcsQueueError, KeyboardInterrupt) as error:
        print_stderr(
            f"replay: {submitted} of {describe_number(len(traffic.requests), 'request')} submitted, which go on"
        )
        # An unreachable ledger leaves it unknown whether the batch was submitted.
        if isinstance(error, LedgerUnavailable) or (submitted and isinstance(error, EcsQueueError)):
            raise SubmissionUnfinished(error_text(error)) from error
        raise


def _traffic_summary(client: EcsQueue, traffic: Traffic, speed: float) -> dict[str, Any]:
    return {
        "namespace": client.config.namespace,
        "requests": len(traffic.requests),
        "queues": traffic.queue_counts,
        "recorded_seconds": round(traffic.duration_seconds, 3),
        "speed": speed,
        "seconds": round(traffic.duration_seconds / speed, 3),
        "redacted": traffic.redacted_count,
        "unreadable": traffic.unreadable_count,
        "unverified": traffic.unverified_count,
    }


def _print_traffic_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({**summary, "dry_run": True})
        return
    queues = ", ".join(f"{queue} {number}" for queue, number in sorted(summary["queues"].items()))
    recorded, replayed = format_duration(summary["recorded_seconds"]), format_duration(summary["seconds"])
    unreadable, unverified = summary["unreadable"], summary["unverified"]
    print_fields(
        [
            ("namespace", summary["namespace"]),
            ("requests", f"{summary['requests']} ({queues})"),
            ("recorded in", f"{recorded}, at {summary['speed']:g} times the speed {replayed}"),
            ("with redacted secrets", str(summary["redacted"] or "")),
            ("not valid here", str(summary["invalid"] or "")),
            ("left out", f"{unreadable} that are encrypted or of another version" if unreadable else ""),
            ("not verified", f"{unverified}, left out (--trust-unsigned)" if unverified else ""),
        ]
    )
    print_stderr("dry run: nothing was submitted")


def _print_report(report: DecisionReplay) -> None:
    if report.difference is not None:
        print_stdout(f"different: decision {report.decision_count} of the file is the first that would differ now")
        _print_difference(report.difference)
        return
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(report.decision_counts.items()))
    decisions = describe_number(report.decision_count, "decision")
    print_stdout(f"identical: {decisions} about {describe_number(report.request_count, 'request')} ({kinds})")


def _print_difference(difference: DecisionDifference) -> None:
    recorded, replayed = difference.recorded, difference.replayed
    if isinstance(recorded, dict) and isinstance(replayed, dict):  # only the members that differ
        names = [name for name in recorded if recorded[name] != replayed.get(name)]
        recorded, replayed = ({name: value.get(name) for name in names} for value in (recorded, replayed))
    print_fields(
        [
            ("request", difference.id),
            ("event", f"{difference.seq} ({difference.event}, {format_timestamp_ms(difference.at)})"),
            ("rule", difference.rule),
            ("recorded", truncate(json.dumps(recorded), _MAX_VALUE_LENGTH)),
            ("now", truncate(json.dumps(replayed), _MAX_VALUE_LENGTH)),
        ]
    )
