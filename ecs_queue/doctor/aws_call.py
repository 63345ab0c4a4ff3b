"""One call to AWS, as an answer: what it says, or why it says nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ecs_queue.ecs.classify import classify_read_error
from ecs_queue.protocol.ecs_results import EcsErrorKind


def call_aws(call: Callable[..., Any], **arguments: Any) -> tuple[Mapping[str, Any], str, EcsErrorKind | None]:
    """(answer, reason, kind of trouble): what AWS says, or why it says nothing."""
    try:
        answer: Mapping[str, Any] = call(**arguments)
    except (ClientError, BotoCoreError) as error:
        return (
            {},
            classify_read_error(error).reason,
            EcsErrorKind.DENIED if is_access_denied(error) else classify_read_error(error).kind,
        )
    return answer, "", None


def is_access_denied(error: Exception) -> bool:
    """Whether IAM said no: by its code, or by the words that all of its refusals share."""
    if not isinstance(error, ClientError):
        return False
    told = error.response.get("Error", {})
    return "AccessDenied" in str(told.get("Code")) or "is not authorized to perform" in str(told.get("Message"))
