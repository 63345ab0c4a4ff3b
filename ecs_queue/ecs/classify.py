"""From what ECS, STS, botocore or a proxy said to one of our answers: pure functions over `rules`.

Doubt always falls to the safe side: what is not provably a "no" or provably unsent is AMBIGUOUS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from botocore import exceptions as boto

from ecs_queue.core.answers import Kind, ReadTrouble, RunAnswer, StopAnswer, StopKind, TroubleKind
from ecs_queue.ecs.rules import CAPACITY_FAILURE, RULES, THROTTLE_CODES, Meaning
from ecs_queue.errors import EcsQueueError, InvalidRequest

#: The longest reason, in characters: an "encoded authorization failure message" alone may have thousands.
MAX_REASON = 1000

#: What AWS itself calls a server error; a 5xx under any other name comes from something in between.
_SERVER_CODES = re.compile(r"(?:Server|Internal|Unavailable|Failure|Fault|Timeout)", re.IGNORECASE)
#: failures[] have either such a code ("RESOURCE:CPU") or a sentence as their reason.
_FAILURE_CODE = re.compile(r"[A-Z]{4,}(?::[A-Za-z]+)?(?= \(|$)")
_REQUEST_TIMEOUTS = frozenset({"RequestTimeout", "RequestTimeoutException"})

_RUN_KINDS = {
    Meaning.THROTTLED: Kind.THROTTLED,
    Meaning.SERVER: Kind.ANSWERED_5XX,
    Meaning.LOST: Kind.AMBIGUOUS,
    Meaning.CAPACITY: Kind.CAPACITY,
    Meaning.PROFILE: Kind.PROFILE,
    Meaning.CLUSTER: Kind.PROFILE,
    Meaning.DENIED: Kind.PERMANENT,
    Meaning.NO_TASK: Kind.PERMANENT,
    Meaning.CONFLICT: Kind.CONFLICT,
    Meaning.REFUSED: Kind.PERMANENT,
}
_TROUBLE_KINDS = {
    Meaning.THROTTLED: TroubleKind.THROTTLED,
    Meaning.SERVER: TroubleKind.UNAVAILABLE,
    Meaning.LOST: TroubleKind.UNAVAILABLE,
    Meaning.CAPACITY: TroubleKind.UNAVAILABLE,
    Meaning.PROFILE: TroubleKind.PROFILE,
    Meaning.CLUSTER: TroubleKind.GONE,
    Meaning.DENIED: TroubleKind.DENIED,
}
_STOP_KINDS = {
    TroubleKind.THROTTLED: StopKind.THROTTLED,
    TroubleKind.UNAVAILABLE: StopKind.UNAVAILABLE,
    TroubleKind.PROFILE: StopKind.PROFILE,
    TroubleKind.DENIED: StopKind.DENIED,
    TroubleKind.GONE: StopKind.GONE,
    TroubleKind.INVALID: StopKind.INVALID,
}

#: Nothing can be sent before these are put right; raised while a client is built or a request is signed.
_NO_CREDENTIALS: tuple[type[Exception], ...] = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
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
_NO_CONNECTION = (boto.EndpointConnectionError, boto.ConnectTimeoutError)
#: TLS failures of the handshake: the request had not been written. Others may come while the answer is read.
_HANDSHAKE = re.compile(r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|hostname mismatch", re.IGNORECASE)
#: What urllib3 wraps in a ProxyError when the proxy was not reached, or refused the tunnel.
_PROXY_UNREACHED = re.compile(r"NewConnectionError|ConnectTimeoutError|Tunnel connection failed|NameResolution")


def classify_error(code: str, message: str, status: int, conflicting: Sequence[str] = ()) -> RunAnswer:
    """RunTask answered with an error: AWS's code and message, HTTP's status (0 if unknown).

    `conflicting` are the ARNs that a ConflictException names.
    """
    meaning, advice = _meaning(code, message, status)
    kind = _RUN_KINDS[meaning]
    reason = sentence(_WHAT_HAPPENED[kind], message, code, advice)
    return RunAnswer(kind, reason=reason, code=code, conflicting=tuple(conflicting))


def classify_response(response: Mapping[str, Any]) -> RunAnswer:
    """RunTask answered with HTTP 200: a task, or failures[], or (a proxy's work) nothing."""
    for task in response.get("tasks") or ():
        if arn := task.get("taskArn"):
            return RunAnswer(Kind.STARTED, arn=arn)
    if failures := response.get("failures"):
        return classify_failures(failures)
    reason = "ECS answered RunTask with neither a task nor a failure: whether it started one is not known."
    return RunAnswer(Kind.AMBIGUOUS, reason=reason)


def classify_failures(failures: Sequence[Mapping[str, Any]]) -> RunAnswer:
    """failures[] of one RunTask, one entry a container instance: CAPACITY when any of them lacks room."""
    words = [_failure_words(failure) for failure in failures]
    lacking = [text for text in words if CAPACITY_FAILURE.search(text)]
    kind = Kind.CAPACITY if lacking else Kind.START_FAILURE
    chosen = list(dict.fromkeys(lacking or words))
    code = _FAILURE_CODE.match(chosen[0])
    reason = sentence(_WHAT_HAPPENED[kind], "; ".join(chosen), "", "")
    return RunAnswer(kind, reason=reason, code=code.group() if code else "")


def classify_exception(error: Exception, sent: bool) -> RunAnswer:
    """RunTask raised. `sent`: whether the request had been handed to the network.

    An error of another operation (AssumeRole, for the credentials) means that RunTask was not sent.
    """
    if isinstance(error, boto.ClientError):
        answer = _from_client_error(error)
        own = error.operation_name == "RunTask"
        return answer if own else _credentials_call_failed(answer)
    if isinstance(error, boto.ParamValidationError | InvalidRequest):
        return _unsent(Kind.PERMANENT, error, "The request does not fit ECS's API, so it was not sent")
    if _unusable(error):
        return _unsent(Kind.PROFILE, error, "RunTask was not sent: credentials or settings are unusable")
    if not sent or not_connected(error):
        return _unsent(Kind.NEVER_SENT, error, "RunTask was not sent")
    reason = sentence("Whether ECS started a task is not known", str(error), _name(error), "")
    return RunAnswer(Kind.AMBIGUOUS, reason=reason, code=_name(error))


def not_connected(error: Exception) -> bool:
    """Whether no connection could be made, so that ECS cannot have seen the request."""
    if isinstance(error, _NO_CONNECTION):
        return True
    if isinstance(error, boto.SSLError):
        return _HANDSHAKE.search(str(error)) is not None
    if isinstance(error, boto.ProxyConnectionError):
        inner = error.kwargs.get("error")
        return _PROXY_UNREACHED.search(f"{inner!r} {inner}") is not None
    return False


def read_trouble(error: Exception) -> ReadTrouble:
    """Any exception out of DescribeTasks, ListTasks, StopTask or DescribeClusters."""
    if isinstance(error, boto.ClientError):
        code, message, status = _parts(error)
        meaning, advice = _meaning(code, message, status)
        kind = _TROUBLE_KINDS.get(meaning, TroubleKind.INVALID)
        if error.operation_name not in _OPERATIONS and kind not in _PASSING:
            kind = TroubleKind.PROFILE
        return ReadTrouble(kind, sentence(f"{error.operation_name} failed", message, code, advice), code)
    if isinstance(error, boto.ParamValidationError):
        kind = TroubleKind.INVALID
    elif _unusable(error):
        kind = TroubleKind.PROFILE
    else:
        kind = TroubleKind.UNAVAILABLE
    return ReadTrouble(kind, sentence("ECS was not reached", str(error), _name(error), ""), _name(error))


def stop_trouble(error: Exception) -> StopAnswer:
    """Any exception out of StopTask. A task or cluster that ECS does not know is GONE."""
    trouble = read_trouble(error)
    kind = _STOP_KINDS[trouble.kind]
    if isinstance(error, boto.ClientError) and _meaning(*_parts(error))[0] is Meaning.NO_TASK:
        kind = StopKind.GONE
    return StopAnswer(kind, trouble.reason, trouble.code)


def sentence(what: str, words: str, code: str, advice: str) -> str:
    """`what`: AWS's words (its code). The advice. Cut to MAX_REASON, without values and URL credentials."""
    said = _clean(words).rstrip(". ")
    named = f" ({code})" if code and code not in said else ""
    head = f"{what}: {said}{named}" if said else f"{what}{named}"
    room = MAX_REASON - len(advice) - 2
    head = head if len(head) <= room else head[: room - 3] + "..."
    return f"{head}. {advice}".rstrip()


_WHAT_HAPPENED = {
    Kind.THROTTLED: "ECS throttled the call",
    Kind.ANSWERED_5XX: "ECS answered with a server error",
    Kind.AMBIGUOUS: "Whether ECS started a task is not known",
    Kind.CAPACITY: "ECS has no room for the task now",
    Kind.START_FAILURE: "ECS could not start the task",
    Kind.PERMANENT: "ECS refused the task",
    Kind.PROFILE: "ECS cannot be used",
    Kind.CONFLICT: "ECS has seen this launch's token with other arguments",
}
#: Errors of any other operation come from those that fetch the credentials.
_OPERATIONS = frozenset({"DescribeClusters", "DescribeTasks", "ListTasks", "RunTask", "StopTask"})
_PASSING = frozenset({TroubleKind.THROTTLED, TroubleKind.UNAVAILABLE})


def _meaning(code: str, message: str, status: int) -> tuple[Meaning, str]:
    """What an error answer means, and what to do about it."""
    if code in _REQUEST_TIMEOUTS:
        return Meaning.SERVER, ""
    if status >= 500 and code not in THROTTLE_CODES:
        from_aws = _SERVER_CODES.search(code) is not None and status != 504
        return (Meaning.SERVER if from_aws else Meaning.LOST), ""
    if status == 429:
        return Meaning.THROTTLED, ""
    if status == 0 and code in {"ServerException", "InternalFailure", "ServiceUnavailable"}:
        return Meaning.SERVER, ""
    rule = next(rule for rule in RULES if rule.fits(code, message))
    return rule.meaning, rule.advice


def _parts(error: boto.ClientError) -> tuple[str, str, int]:
    """Code, message and HTTP status (0 if unknown) of a botocore ClientError."""
    told = error.response.get("Error") or {}
    status = (error.response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    return str(told.get("Code") or ""), str(told.get("Message") or ""), int(status)


def _from_client_error(error: boto.ClientError) -> RunAnswer:
    code, message, status = _parts(error)
    return classify_error(code, message, status, error.response.get("resourceIds") or ())


def _credentials_call_failed(answer: RunAnswer) -> RunAnswer:
    passing = answer.kind in (Kind.THROTTLED, Kind.ANSWERED_5XX, Kind.AMBIGUOUS)
    kind = Kind.NEVER_SENT if passing else Kind.PROFILE
    reason = f"RunTask was not sent: the role could not be assumed. {answer.reason}"
    return RunAnswer(kind, reason=reason[:MAX_REASON], code=answer.code, sent=False)


def _unsent(kind: Kind, error: Exception, what: str) -> RunAnswer:
    return RunAnswer(kind, reason=sentence(what, str(error), _name(error), ""), code=_name(error), sent=False)


def _failure_words(failure: Mapping[str, Any]) -> str:
    reason = str(failure.get("reason") or "no reason given")
    detail = failure.get("detail")
    return f"{reason} ({detail})" if detail else reason


def _unusable(error: Exception) -> bool:
    """Whether no call can be made with this profile: its credentials, Region or settings are no good."""
    if isinstance(error, (*_NO_CREDENTIALS, EcsQueueError)):
        return True
    # botocore has no class of its own for "the refreshed credentials are still expired".
    return isinstance(error, RuntimeError) and "credentials" in str(error).lower()


def _name(error: Exception) -> str:
    return type(error).__name__


def _clean(text: str) -> str:
    """One line, without a proxy's HTML and without what may be secret: reported values, passwords in URLs."""
    if text.lstrip().startswith("<"):
        text = re.sub(r"<[^>]*>", " ", text)
    text = " ".join(text.split())
    text = re.sub(r", value: .*, type: ", ", type: ", text)
    return re.sub(r"//[^/@\s]+@", "//***@", text)
