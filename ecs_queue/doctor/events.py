"""The queue of ECS's events as one queue's profile reaches it: that it is there, may be read, and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ecs_queue.core.answers import TroubleKind
from ecs_queue.doctor.asking import asked
from ecs_queue.doctor.finding import Finding, Level, Report

_CHECK = "aws.events"
_POLICY = "grant it as in conf/iam-events-policy.json"
#: More messages than this wait only where nobody reads them.
_MANY = 5000
#: SQS refuses a handle that it never gave, after IAM was asked.
_NO_HANDLE = "ecs-queue-doctor"


def examine_events(report: Report, url: str, sqs: Any) -> Iterator[Finding]:
    """Receives at most one message and gives it back at once; deletes nothing."""
    usable = True
    for finding in _rights(report, url, sqs):
        usable = usable and finding.level is Level.OK
        yield finding
    if usable:
        yield from _attributes(report, url, sqs)


def _rights(report: Report, url: str, sqs: Any) -> Iterator[Finding]:
    _, reason, trouble = asked(
        sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=0, WaitTimeSeconds=0
    )
    if trouble is TroubleKind.DENIED:
        yield report.wrong(_CHECK, f"sqs:ReceiveMessage is denied: {reason}", _POLICY)
        return
    if trouble is not None:
        advice = "check event_queue_url, its Region and the network; until then tasks are polled"
        yield report.wrong(_CHECK, f"the events queue cannot be read: {reason}", advice)
        return
    entries = [{"Id": "0", "ReceiptHandle": _NO_HANDLE}]
    _, reason, trouble = asked(sqs.delete_message_batch, QueueUrl=url, Entries=entries)
    if trouble is TroubleKind.DENIED:
        yield report.wrong(_CHECK, f"sqs:DeleteMessage is denied: {reason}", _POLICY)
        return
    yield report.ok(_CHECK, "the events queue can be read, and its messages deleted")


def _attributes(report: Report, url: str, sqs: Any) -> Iterator[Finding]:
    names = ["ApproximateNumberOfMessages"]
    answer, reason, trouble = asked(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=names)
    if trouble is not None:
        yield report.note(_CHECK, f"backlog not known: {reason}", "sqs:GetQueueAttributes lets the doctor look")
        return
    known = answer.get("Attributes") or {}
    waiting = int(known.get("ApproximateNumberOfMessages") or 0)
    if waiting > _MANY:
        text = f"about {waiting} events wait"
        yield report.warning(_CHECK, text, "start workers, or let the rule match this namespace's tasks only")
    else:
        yield report.ok(_CHECK, f"about {waiting} events wait")
