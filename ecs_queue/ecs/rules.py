"""AWS's words and codes, as data: which meaning each has, and what to do about it.

The first rule that fits decides, so narrow rules stand before wide ones. Codes and messages are those that
Amazon ECS, the services behind it (EC2, Fargate), STS and proxies are known to send; messages are matched in
part and without apostrophes, because their spelling varies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Meaning(Enum):
    """What an error answer means, whatever the operation was."""

    THROTTLED = "throttled"
    SERVER = "server"
    """The call has ended with a server error of AWS's own."""
    LOST = "lost"
    """Something between here and ECS answered: the call itself may still be under way."""
    CAPACITY = "capacity"
    PROFILE = "profile"
    CLUSTER = "cluster"
    """The cluster does not exist or is being deleted."""
    DENIED = "denied"
    NO_TASK = "no_task"
    CONFLICT = "conflict"
    REFUSED = "refused"
    """Any other definitive no."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Fits when `codes` is empty or has the error code, and `words` is None or found in the message."""

    meaning: Meaning
    codes: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    advice: str = ""

    def fits(self, code: str, message: str) -> bool:
        """Whether this rule speaks about an error with this code and message."""
        if self.codes and code not in self.codes:
            return False
        return self.words is None or self.words.search(message) is not None


def _words(pattern: str) -> re.Pattern[str]:
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
_CREDENTIALS = frozenset(
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
_SIGNATURE = frozenset({"InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"})
_ACCOUNT = frozenset({"AccountProblem", "BlockedException", "NotSignedUp", "OptInRequired", "PendingVerification"})
_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedException"} | {"UnauthorizedOperation"}
)
#: An endpoint that knows no such operation is not ECS; a number is botocore's code for an answer without one.
_NOT_ECS = frozenset(
    {"InvalidAction", "UnknownOperation", "UnknownOperationException"}
    | {"301", "302", "307", "308", "401", "403", "404", "405", "407"}
)

_CLUSTER_ADVICE = "Check `cluster` and `region_name` of the profile, or create the cluster."
_CREDENTIALS_ADVICE = "Renew the credentials of this worker (or check conn_id and role_arn)."
_TASK_DEFINITION_ADVICE = "Check `task_definition` of the profile, or register it in this account and Region."

#: What an error message or a failures[] entry says when there is no room (yet) for the task.
_CAPACITY = (
    r"capacity is (?:currently )?unavailable|insufficient (?:instance )?capacity"
    r"|limit on the number of (?:tasks|vCPUs)"
    r"|provisioning capacity limit exceeded|no container instances were found"
    r"|insufficient ?free ?addresses|constraints? unsatisfied"
)
#: The same, and the reasons that only failures[] has: no instance with the resources, place or attributes.
CAPACITY_FAILURE = _words(
    r"^RESOURCE\b|^LOCATION\b|^ATTRIBUTE\b|^EMPTY CAPACITY PROVIDER|^NO ACTIVE INSTANCES|" + _CAPACITY
)

RULES: tuple[Rule, ...] = (
    Rule(Meaning.CONFLICT, frozenset({"ConflictException"})),
    Rule(Meaning.THROTTLED, THROTTLE_CODES),
    Rule(
        Meaning.CLUSTER,
        frozenset({"ClusterNotFoundException", "ClusterNotFound"}),
        advice=_CLUSTER_ADVICE,
    ),
    Rule(
        Meaning.CLUSTER,
        words=_words(r"\bcluster (?:was |is )?(?:not found|inactive|being deleted)"),
        advice=_CLUSTER_ADVICE,
    ),
    Rule(Meaning.PROFILE, _CREDENTIALS, advice=_CREDENTIALS_ADVICE),
    Rule(
        Meaning.PROFILE,
        _SIGNATURE,
        advice="Check this machine's clock and the secret key.",
    ),
    Rule(Meaning.PROFILE, _ACCOUNT, advice="Ask AWS Support, or check that the account may use this Region."),
    Rule(
        Meaning.PROFILE,
        words=_words(r"security token (?:included in the request )?is (?:invalid|expired)|token has expired"),
        advice=_CREDENTIALS_ADVICE,
    ),
    Rule(
        Meaning.PROFILE,
        words=_words(r"service.linked role"),
        advice="Create it with `aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com`.",
    ),
    Rule(
        Meaning.PROFILE,
        _NOT_ECS,
        advice="This is no answer of Amazon ECS: check endpoint_url, AWS_ENDPOINT_URL and the proxy.",
    ),
    Rule(
        Meaning.DENIED,
        _DENIED,
        words=_words(r"PassRole"),
        advice="Grant iam:PassRole on the task's and the execution role.",
    ),
    Rule(Meaning.DENIED, _DENIED, advice="Grant the action to the credentials of this worker."),
    Rule(
        Meaning.THROTTLED,
        words=_words(
            r"rate exceeded|ErrorCode: *(?:RequestLimitExceeded|Throttl)|RequestLimitExceeded"
            r"|too many (?:concurrent )?(?:requests|attempts)|request was throttled|being throttled"
        ),
    ),
    Rule(Meaning.CAPACITY, frozenset({"ServiceQuotaExceededException"})),
    Rule(Meaning.CAPACITY, words=_words(_CAPACITY)),
    Rule(Meaning.NO_TASK, words=_words(r"referenced task was not found|\btask (?:was |is )?not found")),
    Rule(
        Meaning.REFUSED,
        words=_words(
            r"task ?definition (?:was |is )?(?:not found|inactive|does not exist)"
            r"|unable to (?:find|describe) task definition"
        ),
        advice=_TASK_DEFINITION_ADVICE,
    ),
    Rule(
        Meaning.REFUSED,
        words=_words(r"container .* is not a container in the task ?definition"),
        advice="Check `container_name` of the profile.",
    ),
    Rule(Meaning.REFUSED, advice="Correct the request or the profile and submit it again."),
)
