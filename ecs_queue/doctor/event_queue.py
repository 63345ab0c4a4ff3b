"""Checks the SQS queue of ECS's events: that it exists, that the worker may read it, and how many events wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ecs_queue.doctor.aws_call import call_aws
from ecs_queue.findings import Finding, Reporter, Severity
from ecs_queue.protocol.ecs_results import EcsErrorKind

_CHECK_NAME = "aws.event_queue"
_POLICY_ADVICE = "grant it as in conf/iam-events-policy.json"
#: More messages than this wait only where no worker reads them.
_LARGE_BACKLOG = 5000
#: SQS refuses this handle, but only after IAM has authorized the call.
_INVALID_HANDLE = "ecs-queue-doctor"


def check_event_queue(reporter: Reporter, url: str, sqs: Any) -> Iterator[Finding]:
    """Check the queue. It receives at most one message and makes it visible again at once; it deletes nothing."""
    permissions = _permissions(reporter, url, sqs)
    yield permissions
    if permissions.severity is Severity.OK:
        yield _backlog(reporter, url, sqs)


def _permissions(reporter: Reporter, url: str, sqs: Any) -> Finding:
    _, reason, error_kind = call_aws(
        sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=0, WaitTimeSeconds=0
    )
    if error_kind is EcsErrorKind.DENIED:
        return reporter.error(_CHECK_NAME, f"sqs:ReceiveMessage is denied: {reason}", _POLICY_ADVICE)
    if error_kind is not None:
        advice = "check event_queue_url, its Region and the network; until then workers poll tasks"
        return reporter.error(_CHECK_NAME, f"the event queue cannot be read: {reason}", advice)
    entries = [{"Id": "0", "ReceiptHandle": _INVALID_HANDLE}]
    _, reason, error_kind = call_aws(sqs.delete_message_batch, QueueUrl=url, Entries=entries)
    if error_kind is EcsErrorKind.DENIED:
        return reporter.error(_CHECK_NAME, f"sqs:DeleteMessage is denied: {reason}", _POLICY_ADVICE)
    return reporter.ok(_CHECK_NAME, "the event queue can be read, and its messages deleted")


def _backlog(reporter: Reporter, url: str, sqs: Any) -> Finding:
    names = ["ApproximateNumberOfMessages"]
    answer, reason, error_kind = call_aws(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=names)
    if error_kind is not None:
        text = f"the backlog is unknown: {reason}"
        return reporter.info(_CHECK_NAME, text, "grant sqs:GetQueueAttributes to check it")
    waiting = int((answer.get("Attributes") or {}).get(names[0]) or 0)
    text = f"about {waiting} events wait"
    if waiting > _LARGE_BACKLOG:
        return reporter.warning(_CHECK_NAME, text, "start workers, or let the rule match this namespace's tasks only")
    return reporter.ok(_CHECK_NAME, text)
