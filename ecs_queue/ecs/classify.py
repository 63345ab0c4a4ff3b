"""Classifies what ECS, STS, botocore or a proxy returned: pure functions over `protocol.aws_reasons`.

A result that is neither provably a refusal nor provably unsent is AMBIGUOUS, which is always safe.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from botocore import exceptions as boto

from ecs_queue.error_text import error_text, hide_values
from ecs_queue.errors import EcsQueueError, InvalidRequest
from ecs_queue.protocol.aws_causes import Cause, Channel, Consequence, what_follows
from ecs_queue.protocol.aws_reasons import find_cause
from ecs_queue.protocol.ecs_results import (
    EcsError,
    EcsErrorKind,
    RunTaskResult,
    RunTaskResultKind,
)

#: The longest reason, in characters: an "encoded authorization failure message" alone may have thousands.
MAX_REASON_LENGTH = 1000

#: failures[] have either such a code ("RESOURCE:CPU") or a sentence as their reason.
_FAILURE_CODE = re.compile(r"[A-Z]{4,}(?::[A-Za-z]+)?(?= \(|$)")

_RUN_TASK_KINDS = {
    Consequence.FAIL: RunTaskResultKind.PERMANENT,
    Consequence.USE_ATTEMPT: RunTaskResultKind.START_FAILURE,
    Consequence.WAIT: RunTaskResultKind.CAPACITY,
    Consequence.WAIT_THEN_FAIL: RunTaskResultKind.ROLE_NOT_USABLE,
    Consequence.SLOW_DOWN: RunTaskResultKind.THROTTLED,
    Consequence.OPEN_CIRCUIT: RunTaskResultKind.UNUSABLE_PROFILE,
}
_UNCERTAIN_KINDS = {
    Cause.SERVER_ERROR: RunTaskResultKind.ANSWERED_5XX,
    Cause.INTERMEDIARY: RunTaskResultKind.AMBIGUOUS,
    Cause.CONFLICT: RunTaskResultKind.CONFLICT,
}
#: Of several failures of one call, the first of these kinds counts: waiting for room helps, whatever else is wrong.
_FAILURE_ORDER = (
    RunTaskResultKind.CAPACITY,
    RunTaskResultKind.UNUSABLE_PROFILE,
    RunTaskResultKind.ROLE_NOT_USABLE,
    RunTaskResultKind.START_FAILURE,
)
_READ_ERROR_KINDS = {
    Cause.THROTTLED: EcsErrorKind.THROTTLED,
    Cause.SERVER_ERROR: EcsErrorKind.UNAVAILABLE,
    Cause.INTERMEDIARY: EcsErrorKind.UNAVAILABLE,
    Cause.CAPACITY: EcsErrorKind.UNAVAILABLE,
    Cause.EC2_ERROR: EcsErrorKind.UNAVAILABLE,
    Cause.AGENT: EcsErrorKind.UNAVAILABLE,
    Cause.PROFILE: EcsErrorKind.UNUSABLE_PROFILE,
    Cause.CLUSTER_NOT_FOUND: EcsErrorKind.CLUSTER_NOT_FOUND,
    Cause.DENIED: EcsErrorKind.DENIED,
    Cause.ROLE_DENIED: EcsErrorKind.DENIED,
    Cause.TAGS_DENIED: EcsErrorKind.DENIED,
}

#: botocore raises these while it builds a client or signs a request: someone must correct the settings first.
_CREDENTIAL_ERRORS: tuple[type[Exception], ...] = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    # The two that older versions lack: of `aws login`, and of an unknown kind of token.
    getattr(boto, "LoginError", boto.SSOError),
    getattr(boto, "UnknownTokenProviderError", boto.NoAuthTokenError),
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.ConfigNotFound,
    boto.InvalidConfigError,
    boto.UnknownCredentialError,
    boto.RefreshWithMFAUnsupportedError,
    boto.NoRegionError,
    boto.InvalidRegionError,
    boto.EndpointProviderError,
    boto.MetadataRetrievalError,
)
_CONNECT_ERRORS = (boto.EndpointConnectionError, boto.ConnectTimeoutError)
#: The word of `curl_client` for TLS failures before which no byte of the request was sent.
HANDSHAKE_FAILED = "TLS handshake failed"
#: Modules and functions that only prepare a connection.
_HANDSHAKE_CALLS = {("ssl", "do_handshake"), ("urllib3.util.ssl_", "ssl_wrap_socket")}
#: What urllib3 wraps in a ProxyError when the proxy was not reached, or refused the tunnel.
_PROXY_UNREACHED = re.compile(r"NewConnectionError|ConnectTimeoutError|Tunnel connection failed|NameResolution")


def classify_error(
    code: str,
    message: str,
    status: int,
    conflicting: Sequence[str] = (),
    payload: Mapping[str, Any] | None = None,
) -> RunTaskResult:
    """Classify RunTask's error response.

    Args:
        code: AWS's error code.
        message: AWS's error message.
        status: HTTP's status; 0 if unknown.
        conflicting: The ARNs that a ConflictException names.
        payload: What was sent; no value of its environments and commands is shown.
    """
    cause, advice = _find_error_cause(code, message, status)
    kind = _UNCERTAIN_KINDS.get(cause) or _RUN_TASK_KINDS[what_follows(cause)]
    reason = format_reason(_SUMMARIES[kind], message, code, advice, payload)
    return RunTaskResult(kind, reason=reason, error_code=code, conflicting_arns=tuple(conflicting), cause=cause)


def classify_response(response: Mapping[str, Any], payload: Mapping[str, Any] | None = None) -> RunTaskResult:
    """Classify RunTask's response with HTTP 200: a task, or failures[], or (from a proxy) nothing."""
    for task in response.get("tasks") or ():
        if arn := task.get("taskArn"):
            return RunTaskResult(RunTaskResultKind.STARTED, arn=arn)
    if failures := response.get("failures"):
        return classify_failures(failures, payload)
    reason = "ECS answered RunTask with neither a task nor a failure: whether it started one is not known."
    return RunTaskResult(RunTaskResultKind.AMBIGUOUS, reason=reason)


def classify_failures(failures: Sequence[Mapping[str, Any]], payload: Mapping[str, Any] | None = None) -> RunTaskResult:
    """Classify failures[] of one RunTask, one entry a container instance: the first kind of `_FAILURE_ORDER` counts."""
    found = [(*_classify_failure(text), text) for text in map(_failure_text, failures)]
    kind, cause, advice, first = min(found, key=lambda entry: _FAILURE_ORDER.index(entry[0]))
    chosen = list(dict.fromkeys(text for other, _, _, text in found if other is kind))
    code = _FAILURE_CODE.match(first)
    reason = format_reason(_SUMMARIES[kind], "; ".join(chosen), "", advice, payload)
    return RunTaskResult(kind, reason=reason, error_code=code.group() if code else "", cause=cause)


def _classify_failure(text: str) -> tuple[RunTaskResultKind, Cause, str]:
    """Return kind, cause and advice. A failure is a definitive answer to its client token, even if it is a throttle."""
    cause, advice = find_cause(Channel.FAILURE, text)
    cause = cause or Cause.START_FAILURE
    kind = _RUN_TASK_KINDS[what_follows(cause)]
    return (RunTaskResultKind.CAPACITY if kind is RunTaskResultKind.THROTTLED else kind), cause, advice


def classify_exception(error: Exception, sent: bool, payload: Mapping[str, Any] | None = None) -> RunTaskResult:
    """Classify what RunTask raised; `sent` says whether the request had been handed to the network.

    An error of another operation (AssumeRole, for the credentials) means that RunTask was not sent.
    """
    if isinstance(error, boto.ClientError):
        result = classify_error(*_error_fields(error), error.response.get("resourceIds") or (), payload)
        return result if error.operation_name == "RunTask" else _classify_credentials_failure(result)
    if isinstance(error, boto.ParamValidationError | InvalidRequest):
        kind, summary = RunTaskResultKind.PERMANENT, "The request does not fit ECS's API, so it was not sent"
    elif _is_profile_error(error):
        kind = RunTaskResultKind.UNUSABLE_PROFILE
        summary = "RunTask was not sent: credentials or settings are unusable"
    elif not sent or is_connection_failure(error):
        kind, summary = RunTaskResultKind.NEVER_SENT, "RunTask was not sent"
    else:
        kind = RunTaskResultKind.AMBIGUOUS
        summary = _SUMMARIES[kind]
    code, may_be_sent = type(error).__name__, kind is RunTaskResultKind.AMBIGUOUS
    return RunTaskResult(
        kind, reason=format_reason(summary, error_text(error), code, "", payload), error_code=code, was_sent=may_be_sent
    )


def is_connection_failure(error: Exception) -> bool:
    """Return whether no connection could be made, so that ECS cannot have received the request."""
    if isinstance(error, _CONNECT_ERRORS):
        return True
    if isinstance(error, boto.SSLError):
        return HANDSHAKE_FAILED in str(error) or _is_raised_by_handshake(error)
    if isinstance(error, boto.ProxyConnectionError):
        inner = error.kwargs.get("error")
        return _PROXY_UNREACHED.search(f"{inner!r} {inner}") is not None
    return False


def _is_raised_by_handshake(error: boto.SSLError) -> bool:
    """Return whether this comes from the file of authorities, Python's TLS handshake or the check of the host's name.

    Nothing of the request has been written then. The text is no proof: OpenSSL also says WRONG_VERSION_NUMBER where the
    answer is not TLS, and verifies a certificate again where the server renegotiates.
    """
    from urllib3.util.ssl_match_hostname import CertificateError  # botocore has loaded it

    wrapper = error.kwargs.get("error")  # urllib3's; it holds the error that it wraps
    causes = [cause for cause in (wrapper, *getattr(wrapper, "args", ())) if isinstance(cause, BaseException)]
    if any(isinstance(cause, CertificateError) for cause in causes):
        return True
    frames = [frame for cause in causes for frame, _ in traceback.walk_tb(cause.__traceback__)]
    calls = {(frame.f_globals.get("__name__"), frame.f_code.co_name) for frame in frames}
    return not calls.isdisjoint(_HANDSHAKE_CALLS)


def classify_read_error(error: Exception) -> EcsError:
    """Classify any exception of DescribeTasks, ListTasks, StopTask or DescribeClusters."""
    if isinstance(error, boto.ClientError):
        code, message, status = _error_fields(error)
        cause, advice = _find_error_cause(code, message, status)
        kind = _READ_ERROR_KINDS.get(cause, EcsErrorKind.INVALID)
        if error.operation_name not in _ECS_OPERATIONS and kind not in _TRANSIENT:
            kind = EcsErrorKind.UNUSABLE_PROFILE
        return EcsError(kind, format_reason(f"{error.operation_name} failed", message, code, advice), code)
    if isinstance(error, boto.ParamValidationError):
        kind = EcsErrorKind.INVALID
    elif _is_profile_error(error):
        kind = EcsErrorKind.UNUSABLE_PROFILE
    else:
        kind = EcsErrorKind.UNAVAILABLE
    code = type(error).__name__
    return EcsError(kind, format_reason("ECS was not reached", error_text(error), code, ""), code)


def classify_stop_error(error: Exception) -> EcsError:
    """Classify any exception of StopTask: TASK_NOT_FOUND when ECS does not know the task or its cluster."""
    found = classify_read_error(error)
    is_unknown = found.kind is EcsErrorKind.CLUSTER_NOT_FOUND
    if isinstance(error, boto.ClientError):
        is_unknown |= _find_error_cause(*_error_fields(error))[0] is Cause.TASK_NOT_FOUND
    return replace(found, kind=EcsErrorKind.TASK_NOT_FOUND) if is_unknown else found


def format_reason(summary: str, detail: str, code: str, advice: str, payload: Mapping[str, Any] | None = None) -> str:
    """Return "summary: detail (code). advice", cut to MAX_REASON_LENGTH, without values and URL credentials."""
    detail = _sanitize(detail, payload).rstrip(". ")
    is_named = re.search(rf"(?<!\w){re.escape(code)}(?!\w)", detail) is not None  # "403" may be a part of an ARN
    named = f" ({code})" if code and not is_named else ""
    head = f"{summary}: {detail}{named}" if detail else f"{summary}{named}"
    room = MAX_REASON_LENGTH - len(advice) - 2
    head = head if len(head) <= room else head[: room - 3] + "..."
    return f"{head}. {advice}".rstrip()


_SUMMARIES = {
    RunTaskResultKind.THROTTLED: "ECS throttled the call",
    RunTaskResultKind.ANSWERED_5XX: "ECS answered with a server error",
    RunTaskResultKind.AMBIGUOUS: "Whether ECS started a task is not known",
    RunTaskResultKind.CAPACITY: "ECS cannot place the task now",
    RunTaskResultKind.ROLE_NOT_USABLE: "ECS cannot use a role of the task yet",
    RunTaskResultKind.START_FAILURE: "ECS could not start the task",
    RunTaskResultKind.PERMANENT: "ECS refused the task",
    RunTaskResultKind.UNUSABLE_PROFILE: "ECS cannot be used",
    RunTaskResultKind.CONFLICT: "ECS has seen this launch's token with other arguments",
}
#: Errors of any other operation come from those that fetch the credentials.
_ECS_OPERATIONS = frozenset({"DescribeClusters", "DescribeTasks", "ListTasks", "RunTask", "StopTask"})
_TRANSIENT = frozenset({EcsErrorKind.THROTTLED, EcsErrorKind.UNAVAILABLE})


def _find_error_cause(code: str, message: str, status: int) -> tuple[Cause, str]:
    """Return what an error response means, and what to do about it."""
    cause, advice = find_cause(Channel.ERROR, message, code, status)
    return cause or Cause.REFUSED, advice


def _error_fields(error: boto.ClientError) -> tuple[str, str, int]:
    """Return code, message and HTTP status (0 if unknown) of a botocore ClientError."""
    found = error.response.get("Error") or {}
    status = (error.response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    return str(found.get("Code") or ""), str(found.get("Message") or ""), int(status)


def _classify_credentials_failure(result: RunTaskResult) -> RunTaskResult:
    kinds = RunTaskResultKind
    is_transient = result.kind in (kinds.THROTTLED, kinds.ANSWERED_5XX, kinds.AMBIGUOUS)
    kind = kinds.NEVER_SENT if is_transient else kinds.UNUSABLE_PROFILE
    reason = f"RunTask was not sent: the role could not be assumed. {result.reason}"
    return RunTaskResult(kind, reason=reason[:MAX_REASON_LENGTH], error_code=result.error_code, was_sent=False)


def _failure_text(failure: Mapping[str, Any]) -> str:
    reason = str(failure.get("reason") or "no reason given")
    detail = failure.get("detail")
    return f"{reason} ({detail})" if detail else reason


def _is_profile_error(error: Exception) -> bool:
    """Return whether no call can be made with this profile: its credentials, Region or settings are unusable."""
    if isinstance(error, (*_CREDENTIAL_ERRORS, EcsQueueError)):
        return True
    # botocore has no class of its own for "the refreshed credentials are still expired".
    return isinstance(error, RuntimeError) and "credentials" in str(error).lower()


def _sanitize(text: str, payload: Mapping[str, Any] | None) -> str:
    """One line, without a proxy's HTML and without what may be secret: reported values, passwords in URLs."""
    if text.lstrip().startswith("<"):
        text = re.sub(r"<[^>]*>", " ", text)
    return hide_values(" ".join(text.split()), payload)
