"""The queue of ECS's events as one queue's profile reaches it: that it is there, may be read, and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ecs_queue.doctor.aws_call import call_aws
from ecs_queue.doctor.finding import Finding, Reporter, Severity
from ecs_queue.protocol.ecs_results import EcsErrorKind

_CHECK_NAME = "aws.event_queue"
_POLICY_ADVICE = "grant it as in conf/iam-events-policy.json"
#: More messages than this wait only where nobody reads them.
_LARGE_BACKLOG = 5000
#: SQS refuses a handle that it never gave, after IAM was asked.
_INVALID_HANDLE = "ecs-queue-doctor"


def check_event_queue(reporter: Reporter, url: str, sqs: Any) -> Iterator[Finding]:
    """Receives at most one message and gives it back at once; deletes nothing."""
    usable = True
    for finding in _permissions(reporter, url, sqs):
        usable = usable and finding.severity is Severity.OK
        yield finding
    if usable:
        yield from _backlog(reporter, url, sqs)


def _permissions(reporter: Reporter, url: str, sqs: Any) -> Iterator[Finding]:
    _, reason, trouble = call_aws(
        sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=0, WaitTimeSeconds=0
    )
    if trouble is EcsErrorKind.DENIED:
        yield reporter.error(_CHECK_NAME, f"sqs:ReceiveMessage is denied: {reason}", _POLICY_ADVICE)
        return
    if trouble is not None:
        advice = "check event_queue_url, its Region and the network; until then tasks are polled"
        yield reporter.error(_CHECK_NAME, f"the events queue cannot be read: {reason}", advice)
        return
    entries = [{"Id": "0", "ReceiptHandle": _INVALID_HANDLE}]
    _, reason, trouble = call_aws(sqs.delete_message_batch, QueueUrl=url, Entries=entries)
    if trouble is EcsErrorKind.DENIED:
        yield reporter.error(_CHECK_NAME, f"sqs:DeleteMessage is denied: {reason}", _POLICY_ADVICE)
        return
    yield reporter.ok(_CHECK_NAME, "the events queue can be read, and its messages deleted")


def _backlog(reporter: Reporter, url: str, sqs: Any) -> Iterator[Finding]:
    names = ["ApproximateNumberOfMessages"]
    answer, reason, trouble = call_aws(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=names)
    if trouble is not None:
        yield reporter.info(_CHECK_NAME, f"backlog not known: {reason}", "sqs:GetQueueAttributes lets the doctor look")
        return
    known = answer.get("Attributes") or {}
    waiting = int(known.get("ApproximateNumberOfMessages") or 0)
    if waiting > _LARGE_BACKLOG:
        text = f"about {waiting} events wait"
        yield reporter.warning(_CHECK_NAME, text, "start workers, or let the rule match this namespace's tasks only")
    else:
        yield reporter.ok(_CHECK_NAME, f"about {waiting} events wait")
