"""What AWS's words mean, as data: error codes and messages, failures[], stop codes, reasons of tasks and containers.

AWS says one thing by several channels: a lack of capacity is the error of a call, an entry of `failures`, or the reason
of a task that has stopped. `find_cause` returns the same cause for each. The first rule that matches decides, so narrow
rules stand before wide ones. Messages are matched in part and without apostrophes, because their spelling varies.

The words are those of AWS's documentation (API_RunTask.html and CommonErrors.html, api_failures_messages.html,
stopped-task-error-codes.html, EC2's errors-overview.html) and of public reports; `ReasonRule.source` says which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecs_queue.protocol.aws_causes import Cause, Channel


@dataclass(frozen=True, slots=True)
class ReasonRule:
    """Matches when `codes` is empty or has the code, and `pattern` is None or found in the text."""

    cause: Cause
    codes: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    advice: str = ""
    source: str = ""
    channels: frozenset[Channel] = frozenset(Channel)

    def matches(self, channel: Channel, code: str, text: str) -> bool:
        """Return whether this rule applies to what came by this channel."""
        if channel not in self.channels or (self.codes and code not in self.codes):
            return False
        return self.pattern is None or self.pattern.search(text) is not None


def find_cause(channel: Channel, text: str, code: str = "", status: int = 0) -> tuple[Cause | None, str]:
    """Return what these words mean, and what to do about it; None for words of a stopped task that say nothing.

    Args:
        channel: How they came.
        text: The message or the reason.
        code: The error code, or the stop code.
        status: HTTP's status of an error; 0 if unknown.
    """
    if channel is Channel.ERROR and (cause := _find_cause_by_status(code, status)):
        return cause, ""
    rule = next((rule for rule in REASON_RULES if rule.matches(channel, code, text)), None)
    return (None, "") if rule is None else (rule.cause, rule.advice)


def _find_cause_by_status(code: str, status: int) -> Cause | None:
    if code in _UNANSWERED_CODES:
        return Cause.SERVER_ERROR
    if status in _UNANSWERED_STATUSES:
        return Cause.INTERMEDIARY
    if status >= 500 and code not in THROTTLE_CODES:
        from_aws = _SERVER_CODES.search(code) is not None and status != 504
        return Cause.SERVER_ERROR if from_aws else Cause.INTERMEDIARY
    if status == 429:
        return Cause.THROTTLED
    if status == 0 and code in {"ServerException", "InternalFailure", "ServiceUnavailable"}:
        return Cause.SERVER_ERROR
    return None


#: What AWS itself calls a server error; a 5xx under any other name comes from something in between.
_SERVER_CODES = re.compile(r"(?:Server|Internal|Unavailable|Failure|Fault|Timeout)", re.IGNORECASE)
#: AWS's names with status 4xx for a call that ended before its response, so it may have had an effect.
_UNANSWERED_CODES = frozenset({"RequestAbortedException", "RequestTimeout", "RequestTimeoutException"})
#: 4xx of a proxy that ended the call itself: too slow a request, TLS's early data, a closed connection.
_UNANSWERED_STATUSES = frozenset({408, 425, 499})

THROTTLE_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "429",
    }
)
#: Nothing that these credentials send will be accepted, whichever request it is.
_CREDENTIAL_CODES = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_CLUSTER_CODES = frozenset({"ClusterNotFoundException", "ClusterNotFound"})
_SIGNATURE_CODES = frozenset(
    {"InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)
_ACCOUNT_CODES = frozenset(
    {"AccountProblem", "Blocked", "BlockedException", "NotSignedUp", "OptInRequired", "PendingVerification"}
    | {"SubscriptionRequiredException"}
)
_DENIED_CODES = frozenset(
    {"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedException"} | {"UnauthorizedOperation"}
)
#: An endpoint that knows no such operation is not ECS; a number is botocore's code for an answer without one.
_NOT_ECS_CODES = frozenset(
    {"InvalidAction", "UnknownOperation", "UnknownOperationException"}
    | {"300", "301", "302", "303", "304", "307", "308"}
    | {"401", "403", "404", "405", "407", "410", "411", "417", "421", "426", "451"}
)

_CLUSTER_ADVICE = "Check `cluster` and `region_name` of the profile, or create the cluster."
_ACCOUNT_ADVICE = "Ask AWS Support, or check that the account may use this Region."
_CREDENTIALS_ADVICE = "Renew the credentials of this worker (or check conn_id and role_arn)."
TASK_DEFINITION_ADVICE = "Check `task_definition` of the profile, or register it in this account and Region."
_ROLE_ADVICE = "Check that the role exists and that its trust policy lets ecs-tasks.amazonaws.com assume it."

_CALLS = frozenset({Channel.ERROR, Channel.FAILURE})
_ERRORS, _FAILURES, _STOPS = (frozenset({channel}) for channel in Channel)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def _compile_word(word: str) -> re.Pattern[str]:
    """A reason of failures[], which is one word in capitals, also behind "TaskFailedToStart: ".

    It begins the text or follows its first words. Further on it may be a part of a name, as in the image `jobs:AGENT`.
    """
    return re.compile(rf"^\s*(?:[A-Za-z ().]+: ?)?{word}(?![\w-])")


#: What EC2 calls a server error; ECS quotes it in a refusal with status 400.
_EC2_ERROR_CODES = r"(?:Internal(?:Error|Failure)|(?:Service)?Unavailable)"

#: "is not authorized to perform: ecs:RunTask on resource ... because no identity-based policy allows", or ".. with an
#: explicit deny in a service control policy", or ".. because no VPC endpoint policy allows the action".
_NOT_AUTHORIZED = r"not authorized to perform"

REASON_RULES: tuple[ReasonRule, ...] = (
    ReasonRule(Cause.CONFLICT, frozenset({"ConflictException"}), source="API_RunTask", channels=_ERRORS),
    ReasonRule(Cause.THROTTLED, THROTTLE_CODES, source="CommonErrors", channels=_ERRORS),
    ReasonRule(Cause.CLUSTER_NOT_FOUND, _CLUSTER_CODES, advice=_CLUSTER_ADVICE, source="API_RunTask", channels=_ERRORS),
    ReasonRule(
        Cause.CLUSTER_NOT_FOUND,
        pattern=_compile(r"\bcluster (?:was |is )?(?:not found|inactive|being deleted)"),
        advice=_CLUSTER_ADVICE,
        source="API_RunTask",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.PROVIDER_NOT_FOUND,
        pattern=_compile(r"capacity provider (?:\S+ )?(?:that )?(?:is|was) not (?:associated with the cluster|found)"),
        advice="Associate it with the cluster (`aws ecs put-cluster-capacity-providers`), or name another one.",
        source="reports",
        channels=_CALLS,
    ),
    ReasonRule(Cause.PROFILE, _CREDENTIAL_CODES, advice=_CREDENTIALS_ADVICE, source="CommonErrors", channels=_ERRORS),
    ReasonRule(
        Cause.PROFILE,
        _SIGNATURE_CODES,
        advice="Check this machine's clock and the secret key.",
        source="CommonErrors",
        channels=_ERRORS,
    ),
    ReasonRule(
        Cause.PROFILE,
        _ACCOUNT_CODES,
        advice=_ACCOUNT_ADVICE,
        source="CommonErrors",
        channels=_ERRORS,
    ),
    ReasonRule(
        Cause.PROFILE,
        pattern=_compile(r"account is (?:currently )?blocked"),
        advice=_ACCOUNT_ADVICE,
        source="reports",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.PROFILE,
        pattern=_compile(r"security token (?:included in the request )?is (?:invalid|expired)|token has expired"),
        advice=_CREDENTIALS_ADVICE,
        source="CommonErrors",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.PROFILE,
        pattern=_compile(r"service.linked role"),
        advice="Create it with `aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com`.",
        source="API_RunTask",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.PROFILE,
        _NOT_ECS_CODES,
        advice="Amazon ECS does not answer like this: check endpoint_url, AWS_ENDPOINT_URL and the proxy.",
        source="reports",
        channels=_ERRORS,
    ),
    ReasonRule(
        Cause.ROLE_DENIED,
        # Not as a part of a name: the role that is denied ecs:RunTask may be `PassRole-worker`.
        pattern=_compile(rf"{_NOT_AUTHORIZED}:? *iam:PassRole|(?<![\w/+=,.@-])PassRole(?![\w/+=,@-])"),
        advice="Grant iam:PassRole on the task's and the execution role.",
        source="API_RunTask",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.TAGS_DENIED,
        pattern=_compile(rf"{_NOT_AUTHORIZED}:? *ecs:TagResource"),
        advice="Grant ecs:TagResource, or leave the tags out.",
        source="API_RunTask",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.TAGS_DENIED,
        pattern=_compile(r"new ARN and resource ID format must be enabled|long arn format must be used for tagging"),
        advice="Opt in to the long ARN format for these credentials (put-account-setting), or leave the tags out.",
        source="reports",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.DENIED,
        _DENIED_CODES,
        advice="Grant the action to the credentials of this worker.",
        source="CommonErrors",
        channels=_ERRORS,
    ),
    ReasonRule(
        Cause.DENIED,
        pattern=_compile(_NOT_AUTHORIZED),
        advice="Grant the action to the credentials of this worker.",
        source="CommonErrors",
        channels=_CALLS,
    ),
    ReasonRule(
        Cause.START_FAILURE,
        pattern=_compile(r"pull rate limit"),
        advice="Docker Hub limits pulls for hours: log in to it, or copy the image to Amazon ECR.",
        source="stopped-task-error-codes",
        channels=_STOPS,
    ),
    ReasonRule(
        Cause.THROTTLED,
        pattern=_compile(
            r"rate exceeded|ErrorCode: *(?:RequestLimitExceeded|Throttl)|\b(?:RequestLimitExceeded|ThrottlingException)"
            r"|too many (?:concurrent )?(?:requests|attempts)|request was throttled|being throttled"
            r"|request limit exceeded"
        ),
        source="EC2 errors-overview, reports",
    ),
    ReasonRule(
        Cause.EC2_ERROR,
        pattern=_compile(
            rf"\bErrorCode: *{_EC2_ERROR_CODES}\b|Unexpected EC2 error while attempting to [^:]+: *{_EC2_ERROR_CODES}\b"
            r"|(?:^|TaskFailedToStart: )InternalError\b|Unable to execute HTTP request"
        ),
        source="EC2 errors-overview, failed-to-start-error, reports",
    ),
    ReasonRule(Cause.CAPACITY, frozenset({"ServiceQuotaExceededException"}), source="CommonErrors", channels=_ERRORS),
    ReasonRule(
        Cause.CAPACITY,
        pattern=_compile_word(r"(?:RESOURCE(?::\w+)?|LOCATION|ATTRIBUTE|EMPTY CAPACITY PROVIDER|NO ACTIVE INSTANCES)"),
        advice="Add capacity, or wait until other tasks end.",
        source="api_failures_messages",
        channels=frozenset({Channel.FAILURE, Channel.STOP}),
    ),
    ReasonRule(
        Cause.CAPACITY,
        pattern=_compile(
            r"capacity is (?:currently )?unavailable|insufficient ?(?:instance ?)?capacity"
            r"|limit on the number of (?:\w+ )?(?:tasks|vCPUs)|(?:CPU|MEMORY) configuration is above your limit"
            r"|provisioning capacity limit (?:was )?exceeded|no container instances were found"
            r"|insufficient ?free ?addresses|constraints? unsatisfied|no space available in the cluster"
            r"|(?:NetworkInterface|PrivateIpAddress)LimitExceeded|network interface to unused device index"
            r"|(?:ENI|network interface|ephemeral ?storage) provisioning to complete"
        ),
        source="api_failures_messages, service-event-messages-list, failed-to-start-error, EC2 errors-overview",
    ),
    ReasonRule(
        Cause.AGENT,
        pattern=_compile_word("AGENT"),
        advice="Check the ECS agent of the container instances.",
        source="api_failures_messages",
        channels=frozenset({Channel.FAILURE, Channel.STOP}),
    ),
    ReasonRule(
        Cause.AGENT,
        pattern=_compile(r"\bagent (?:is |was )?(?:not connected|disconnected)"),
        advice="Check the ECS agent of the container instances.",
        source="reports",
    ),
    ReasonRule(
        Cause.ROLE_NOT_USABLE,
        pattern=_compile(r"unable to assume (?:the |this )?role|\brole is not valid\b"),
        advice=_ROLE_ADVICE,
        source="stopped-task-error-codes, reports",
    ),
    ReasonRule(
        Cause.TASK_NOT_FOUND,
        pattern=_compile(r"referenced task was not found|\btask (?:was |is )?not found"),
        source="API_StopTask",
        channels=_ERRORS,
    ),
    ReasonRule(
        Cause.REFUSED,
        pattern=_compile(
            r"task ?definition (?:was |is )?(?:not found|inactive|does not exist)"
            r"|unable to (?:find|describe) task definition"
        ),
        advice=TASK_DEFINITION_ADVICE,
        source="API_RunTask",
        channels=_ERRORS,
    ),
    ReasonRule(
        Cause.REFUSED,
        pattern=_compile(r"container .* is not a container in the task ?definition"),
        advice="Check `container_name` of the profile and the names of containers in `executor_config`.",
        source="API_RunTask",
        channels=_ERRORS,
    ),
    ReasonRule(
        Cause.INTERRUPTED,
        frozenset({"SpotInterruption", "TerminationNotice", "InfrastructureHealth"}),
        source="API_Task",
        channels=_STOPS,
    ),
    ReasonRule(
        Cause.INTERRUPTED,
        pattern=_compile(
            r"host EC2\b.*\b(?:stopped|terminated)|spot task was interrupted"
            r"|maintenance on the underlying infrastructure"
        ),
        source="stopped-task-error-codes",
        channels=_STOPS,
    ),
    ReasonRule(
        Cause.START_FAILURE,
        pattern=_compile(r"^\s*Cannot(?:Start|Create|Pull)\w*Error"),
        source="stopped-task-error-codes",
        channels=_STOPS,
    ),
    ReasonRule(Cause.START_FAILURE, source="api_failures_messages", channels=_FAILURES),
    ReasonRule(Cause.REFUSED, advice="Correct the request or the profile and submit it again.", channels=_ERRORS),
)
