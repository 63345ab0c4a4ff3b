"""Makes one call to AWS and returns its answer or the reason of its failure; tells AWS from a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from ecs_queue.doctor.server import is_loopback
from ecs_queue.ecs.classify import classify_read_error
from ecs_queue.protocol.ecs_results import EcsErrorKind

CREDENTIALS_ADVICE = "set AWS_PROFILE, AWS_ACCESS_KEY_ID ... or a role"


def call_aws(call: Callable[..., Any], **arguments: Any) -> tuple[Mapping[str, Any], str, EcsErrorKind | None]:
    """Return (answer, reason, error kind): an answer with "" and None, or an empty answer with the failure."""
    try:
        return call(**arguments), "", None
    except (ClientError, BotoCoreError) as error:
        failure = classify_read_error(error)
        return {}, failure.reason, EcsErrorKind.DENIED if is_access_denied(error) else failure.kind


def is_access_denied(error: Exception) -> bool:
    """Return whether IAM refused the call, by the error's code or by the words that all of IAM's refusals share."""
    if not isinstance(error, ClientError):
        return False
    details = error.response.get("Error", {})
    return "AccessDenied" in str(details.get("Code")) or "is not authorized to perform" in str(details.get("Message"))


def is_not_aws(endpoint_url: str) -> bool:
    """Return whether the endpoint is a stand-in (a local ECS, moto), without AWS's other services."""
    host = urlsplit(endpoint_url).hostname or ""
    return is_loopback(host) or not host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
