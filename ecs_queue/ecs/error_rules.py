"""AWS's error codes and messages as data: what each means, and what to do about it.

The first rule that matches decides, so narrow rules stand before wide ones. Codes and messages are those that Amazon
ECS, the services behind it (EC2, Fargate), STS and proxies are known to send; messages are matched in part and without
apostrophes, because their spelling varies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class ErrorMeaning(Enum):
    """What an error response means, whatever the operation was."""

    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    """AWS itself has ended the call with a server error."""
    INTERMEDIARY = "intermediary"
    """A proxy or load balancer answered instead of ECS: the call itself may still be under way."""
    CAPACITY = "capacity"
    PROFILE = "profile"
    CLUSTER_NOT_FOUND = "cluster_not_found"
    """The cluster does not exist or is being deleted."""
    DENIED = "denied"
    TASK_NOT_FOUND = "task_not_found"
    CONFLICT = "conflict"
    REFUSED = "refused"
    """Any other definitive refusal."""


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """Matches when `codes` is empty or has the error code, and `message_pattern` is None or found in the message."""

    meaning: ErrorMeaning
    codes: frozenset[str] = frozenset()
    message_pattern: re.Pattern[str] | None = None
    advice: str = ""

    def matches(self, code: str, message: str) -> bool:
        """Return whether this rule applies to an error with this code and message."""
        if self.codes and code not in self.codes:
            return False
        return self.message_pattern is None or self.message_pattern.search(message) is not None


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


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
    {"AccountProblem", "BlockedException", "NotSignedUp", "OptInRequired", "PendingVerification"}
)
_DENIED_CODES = frozenset(
    {"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedException"} | {"UnauthorizedOperation"}
)
#: An endpoint that knows no such operation is not ECS; a number is botocore's code for an answer without one.
_NOT_ECS_CODES = frozenset(
    {"InvalidAction", "UnknownOperation", "UnknownOperationException"}
    | {"301", "302", "307", "308", "401", "403", "404", "405", "407"}
)

_CLUSTER_ADVICE = "Check `cluster` and `region_name` of the profile, or create the cluster."
_CREDENTIALS_ADVICE = "Renew the credentials of this worker (or check conn_id and role_arn)."
_TASK_DEFINITION_ADVICE = "Check `task_definition` of the profile, or register it in this account and Region."

#: What an error message or a failures[] entry says when there is no room (yet) for the task.
_CAPACITY_PATTERN = (
    r"capacity is (?:currently )?unavailable|insufficient (?:instance )?capacity"
    r"|limit on the number of (?:tasks|vCPUs)"
    r"|provisioning capacity limit exceeded|no container instances were found"
    r"|insufficient ?free ?addresses|constraints? unsatisfied"
)
#: The same, and the reasons that only failures[] has: no instance with the resources, place or attributes.
CAPACITY_FAILURE_PATTERN = _compile(
    r"^RESOURCE\b|^LOCATION\b|^ATTRIBUTE\b|^EMPTY CAPACITY PROVIDER|^NO ACTIVE INSTANCES|" + _CAPACITY_PATTERN
)

ERROR_RULES: tuple[ErrorRule, ...] = (
    ErrorRule(ErrorMeaning.CONFLICT, frozenset({"ConflictException"})),
    ErrorRule(ErrorMeaning.THROTTLED, THROTTLE_CODES),
    ErrorRule(ErrorMeaning.CLUSTER_NOT_FOUND, _CLUSTER_CODES, advice=_CLUSTER_ADVICE),
    ErrorRule(
        ErrorMeaning.CLUSTER_NOT_FOUND,
        message_pattern=_compile(r"\bcluster (?:was |is )?(?:not found|inactive|being deleted)"),
        advice=_CLUSTER_ADVICE,
    ),
    ErrorRule(ErrorMeaning.PROFILE, _CREDENTIAL_CODES, advice=_CREDENTIALS_ADVICE),
    ErrorRule(ErrorMeaning.PROFILE, _SIGNATURE_CODES, advice="Check this machine's clock and the secret key."),
    ErrorRule(
        ErrorMeaning.PROFILE, _ACCOUNT_CODES, advice="Ask AWS Support, or check that the account may use this Region."
    ),
    ErrorRule(
        ErrorMeaning.PROFILE,
        message_pattern=_compile(
            r"security token (?:included in the request )?is (?:invalid|expired)|token has expired"
        ),
        advice=_CREDENTIALS_ADVICE,
    ),
    ErrorRule(
        ErrorMeaning.PROFILE,
        message_pattern=_compile(r"service.linked role"),
        advice="Create it with `aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com`.",
    ),
    ErrorRule(
        ErrorMeaning.PROFILE,
        _NOT_ECS_CODES,
        advice="Amazon ECS does not answer like this: check endpoint_url, AWS_ENDPOINT_URL and the proxy.",
    ),
    ErrorRule(
        ErrorMeaning.DENIED,
        _DENIED_CODES,
        message_pattern=_compile(r"PassRole"),
        advice="Grant iam:PassRole on the task's and the execution role.",
    ),
    ErrorRule(ErrorMeaning.DENIED, _DENIED_CODES, advice="Grant the action to the credentials of this worker."),
    ErrorRule(
        ErrorMeaning.THROTTLED,
        message_pattern=_compile(
            r"rate exceeded|ErrorCode: *(?:RequestLimitExceeded|Throttl)|RequestLimitExceeded"
            r"|too many (?:concurrent )?(?:requests|attempts)|request was throttled|being throttled"
        ),
    ),
    ErrorRule(ErrorMeaning.CAPACITY, frozenset({"ServiceQuotaExceededException"})),
    ErrorRule(ErrorMeaning.CAPACITY, message_pattern=_compile(_CAPACITY_PATTERN)),
    ErrorRule(
        ErrorMeaning.TASK_NOT_FOUND,
        message_pattern=_compile(r"referenced task was not found|\btask (?:was |is )?not found"),
    ),
    ErrorRule(
        ErrorMeaning.REFUSED,
        message_pattern=_compile(
            r"task ?definition (?:was |is )?(?:not found|inactive|does not exist)"
            r"|unable to (?:find|describe) task definition"
        ),
        advice=_TASK_DEFINITION_ADVICE,
    ),
    ErrorRule(
        ErrorMeaning.REFUSED,
        message_pattern=_compile(r"container .* is not a container in the task ?definition"),
        advice="Check `container_name` of the profile.",
    ),
    ErrorRule(ErrorMeaning.REFUSED, advice="Correct the request or the profile and submit it again."),
)
