"""Every sentence that AWS, botocore or a proxy is known to say, and what it proves."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.core.answers import Kind, StopKind, TroubleKind
from ecs_queue.ecs.classify import (
    MAX_REASON,
    classify_error,
    classify_exception,
    classify_failures,
    classify_response,
    read_trouble,
    sentence,
    stop_trouble,
)
from ecs_queue.ecs.rules import RULES
from ecs_queue.errors import ConfigError

URL = "https://ecs.eu-central-1.amazonaws.com/"
ARN = "arn:aws:ecs:eu-central-1:123456789012:task/jobs/1"

ERRORS: list[tuple[str, str, int, Kind]] = [
    # Throttles, plain and wrapped.
    ("ThrottlingException", "Rate exceeded", 400, Kind.THROTTLED),
    ("Throttling", "Rate exceeded", 400, Kind.THROTTLED),
    ("TooManyRequestsException", "slow down", 400, Kind.THROTTLED),
    ("RequestLimitExceeded", "Request limit exceeded.", 503, Kind.THROTTLED),
    ("LimitExceededException", "The limit for the number of calls was exceeded", 400, Kind.THROTTLED),
    ("429", "<html>Too Many Requests</html>", 429, Kind.THROTTLED),
    ("SomethingNew", "wait", 429, Kind.THROTTLED),
    ("ClientException", "Rate exceeded", 400, Kind.THROTTLED),
    (
        "InvalidParameterException",
        "Request limit exceeded. (Service: AmazonEC2; Status Code: 503; ErrorCode: RequestLimitExceeded)",
        400,
        Kind.THROTTLED,
    ),
    ("InvalidParameterException", "... (ErrorCode: Throttling; Request ID: 1)", 400, Kind.THROTTLED),
    ("ClientException", "Too many concurrent attempts to create a new revision", 400, Kind.THROTTLED),
    # Server errors: AWS's own, and those of what stands between.
    ("ServerException", "Service Unavailable. Please try again later.", 500, Kind.ANSWERED_5XX),
    ("ServerException", "Rate exceeded", 500, Kind.ANSWERED_5XX),
    ("ServerException", "oops", 0, Kind.ANSWERED_5XX),
    ("InternalFailure", "", 500, Kind.ANSWERED_5XX),
    ("ServiceUnavailableException", "", 503, Kind.ANSWERED_5XX),
    ("RequestTimeoutException", "Your socket was not read", 400, Kind.ANSWERED_5XX),
    ("502", "<html>Bad Gateway</html>", 502, Kind.AMBIGUOUS),
    ("503", "<html>Service Temporarily Unavailable</html>", 503, Kind.AMBIGUOUS),
    ("504", "<html>Gateway Time-out</html>", 504, Kind.AMBIGUOUS),
    ("GatewayTimeout", "", 504, Kind.AMBIGUOUS),
    ("", "", 500, Kind.AMBIGUOUS),
    # No room.
    ("ClientException", "Tasks provisioning capacity limit exceeded.", 400, Kind.CAPACITY),
    ("ClientException", "Capacity is unavailable at this time. Please try again later", 400, Kind.CAPACITY),
    (
        "ClientException",
        "You've reached the limit on the number of vCPUs you can run concurrently",
        400,
        Kind.CAPACITY,
    ),
    (
        "ClientException",
        "You’ve reached the limit on the number of tasks you can run concurrently",
        400,
        Kind.CAPACITY,
    ),
    ("InvalidParameterException", "No Container Instances were found in your cluster.", 400, Kind.CAPACITY),
    ("ServiceQuotaExceededException", "quota", 400, Kind.CAPACITY),
    # The profile: credentials, account, cluster, endpoint.
    (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        400,
        Kind.PROFILE,
    ),
    ("ExpiredTokenException", "The security token included in the request is expired", 400, Kind.PROFILE),
    ("AccessDeniedException", "The security token included in the request is expired", 400, Kind.PROFILE),
    ("InvalidSignatureException", "Signature expired: 2024 is now earlier than 2024", 400, Kind.PROFILE),
    ("IncompleteSignatureException", "x", 400, Kind.PROFILE),
    ("MissingAuthenticationTokenException", "Missing Authentication Token", 403, Kind.PROFILE),
    ("OptInRequired", "You are not subscribed to this service", 403, Kind.PROFILE),
    ("BlockedException", "Your account is currently blocked.", 400, Kind.PROFILE),
    ("ClusterNotFoundException", "Cluster not found.", 400, Kind.PROFILE),
    ("InvalidParameterException", "The referenced cluster was inactive.", 400, Kind.PROFILE),
    ("InvalidParameterException", "Unable to assume the service linked role.", 400, Kind.PROFILE),
    ("UnknownOperationException", "", 404, Kind.PROFILE),
    ("403", "<html>Forbidden by policy</html>", 403, Kind.PROFILE),
    ("404", "", 404, Kind.PROFILE),
    ("301", "", 301, Kind.PROFILE),
    # This request.
    ("AccessDeniedException", "User: x is not authorized to perform: ecs:RunTask", 400, Kind.PERMANENT),
    ("AccessDeniedException", "User: x is not authorized to perform: iam:PassRole", 400, Kind.PERMANENT),
    ("InvalidParameterException", "TaskDefinition is inactive", 400, Kind.PERMANENT),
    ("ClientException", "TaskDefinition not found.", 400, Kind.PERMANENT),
    (
        "InvalidParameterException",
        "Override for container named x is not a container in the TaskDefinition.",
        400,
        Kind.PERMANENT,
    ),
    ("InvalidParameterException", "Container Overrides length must be at most 8192", 400, Kind.PERMANENT),
    ("InvalidParameterException", "Placement constraint expression is invalid", 400, Kind.PERMANENT),
    ("InvalidParameterException", "Attributes must have a name", 400, Kind.PERMANENT),
    ("UnsupportedFeatureException", "no", 400, Kind.PERMANENT),
    ("PlatformUnknownException", "no", 400, Kind.PERMANENT),
    ("PlatformTaskDefinitionIncompatibilityException", "no", 400, Kind.PERMANENT),
    ("ValidationException", "no", 400, Kind.PERMANENT),
    ("400", "", 400, Kind.PERMANENT),
    ("SomethingNew", "a word never seen", 400, Kind.PERMANENT),
    ("ConflictException", "conflict", 400, Kind.CONFLICT),
]


@pytest.mark.parametrize(("code", "message", "status", "kind"), ERRORS)
def test_an_error_of_run_task_is_what_it_says(code: str, message: str, status: int, kind: Kind) -> None:
    answer = classify_error(code, message, status)
    assert (answer.kind, answer.code, answer.arn, answer.sent) == (kind, code, None, True)
    assert answer.reason


def test_every_rule_is_needed_by_a_row_of_the_table() -> None:
    needed = {
        index
        for code, message, status, _ in ERRORS
        for index, rule in enumerate(RULES)
        if status < 500
        and status != 429
        and rule.fits(code, message)
        and not any(earlier.fits(code, message) for earlier in RULES[:index])
    }
    unneeded = set(range(len(RULES))) - needed
    assert [RULES[index] for index in sorted(unneeded) if RULES[index].meaning.value != "no_task"] == []


def test_the_reason_has_awss_words_and_the_next_step() -> None:
    answer = classify_error("ClusterNotFoundException", "Cluster not found.", 400)
    assert answer.reason == (
        "ECS cannot be used: Cluster not found (ClusterNotFoundException). "
        "Check `cluster` and `region_name` of the profile, or create the cluster."
    )


def test_a_conflict_names_the_tasks_of_the_token() -> None:
    assert classify_error("ConflictException", "", 400, [ARN]).conflicting == (ARN,)


@pytest.mark.parametrize(
    ("failures", "kind", "code"),
    [
        ([{"reason": "RESOURCE:CPU"}], Kind.CAPACITY, "RESOURCE:CPU"),
        ([{"reason": "RESOURCE:MEMORY", "arn": "instance"}], Kind.CAPACITY, "RESOURCE:MEMORY"),
        ([{"reason": "RESOURCE:ENI"}], Kind.CAPACITY, "RESOURCE:ENI"),
        ([{"reason": "LOCATION"}], Kind.CAPACITY, "LOCATION"),
        ([{"reason": "ATTRIBUTE"}], Kind.CAPACITY, "ATTRIBUTE"),
        ([{"reason": "Capacity is unavailable at this time. Please try again later"}], Kind.CAPACITY, ""),
        ([{"reason": "You’ve reached the limit on the number of tasks you can run"}], Kind.CAPACITY, ""),
        ([{"reason": "You've reached the limit on the number of vCPUs you can"}], Kind.CAPACITY, ""),
        ([{"reason": "AGENT"}], Kind.START_FAILURE, "AGENT"),
        ([{"reason": "AGENT"}, {"reason": "RESOURCE:CPU"}], Kind.CAPACITY, "RESOURCE:CPU"),
        ([{"reason": "SOMETHING NEW"}], Kind.START_FAILURE, ""),
        ([{}], Kind.START_FAILURE, ""),
    ],
)
def test_failures_cost_an_attempt_unless_room_was_lacking(
    failures: list[dict[str, Any]], kind: Kind, code: str
) -> None:
    answer = classify_failures(failures)
    assert (answer.kind, answer.code) == (kind, code)


def test_the_detail_and_the_different_reasons_of_failures_are_told_once() -> None:
    answer = classify_failures([{"reason": "AGENT", "detail": "disconnected"}, {"reason": "AGENT"}] * 3)
    assert answer.reason == "ECS could not start the task: AGENT (disconnected); AGENT."


def test_a_task_is_a_start_even_when_it_has_stopped_since() -> None:
    replay = {
        "tasks": [{"taskArn": ARN, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"}],
        "failures": [],
    }
    answer = classify_response(replay)
    assert (answer.kind, answer.arn) == (Kind.STARTED, ARN)


@pytest.mark.parametrize("response", [{}, {"tasks": [], "failures": []}, {"tasks": [{}]}, {"tasks": None}])
def test_an_answer_without_task_and_failure_proves_nothing(response: dict[str, Any]) -> None:
    assert classify_response(response).kind is Kind.AMBIGUOUS


def client_error(operation: str, code: str, message: str = "", status: int = 400) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return boto.ClientError(response, operation)


class NewConnectionError(Exception):
    """Named like urllib3's."""


EXCEPTIONS: list[tuple[Exception, bool, Kind, bool]] = [
    (boto.EndpointConnectionError(endpoint_url=URL, error="refused"), True, Kind.NEVER_SENT, False),
    (boto.ConnectTimeoutError(endpoint_url=URL), True, Kind.NEVER_SENT, False),
    (
        boto.SSLError(endpoint_url=URL, error="[SSL: CERTIFICATE_VERIFY_FAILED] x"),
        True,
        Kind.NEVER_SENT,
        False,
    ),
    (
        boto.SSLError(endpoint_url=URL, error="EOF occurred in violation of protocol"),
        True,
        Kind.AMBIGUOUS,
        True,
    ),
    (
        boto.ProxyConnectionError(proxy_url="http://p", error=NewConnectionError("refused")),
        True,
        Kind.NEVER_SENT,
        False,
    ),
    (
        boto.ProxyConnectionError(proxy_url="http://p", error=OSError("Tunnel connection failed: 407")),
        True,
        Kind.NEVER_SENT,
        False,
    ),
    (
        boto.ProxyConnectionError(proxy_url="http://p", error=OSError("reset by peer")),
        True,
        Kind.AMBIGUOUS,
        True,
    ),
    (boto.ReadTimeoutError(endpoint_url=URL), True, Kind.AMBIGUOUS, True),
    (boto.ConnectionClosedError(endpoint_url=URL), True, Kind.AMBIGUOUS, True),
    (boto.HTTPClientError(error="anything"), True, Kind.AMBIGUOUS, True),
    (boto.HTTPClientError(error="anything"), False, Kind.NEVER_SENT, False),
    (ValueError("unparsable"), True, Kind.AMBIGUOUS, True),
    (ValueError("before anything was sent"), False, Kind.NEVER_SENT, False),
    (boto.NoCredentialsError(), False, Kind.PROFILE, False),
    (boto.PartialCredentialsError(provider="env", cred_var="x"), False, Kind.PROFILE, False),
    (boto.CredentialRetrievalError(provider="process", error_msg="x"), False, Kind.PROFILE, False),
    (boto.NoRegionError(), False, Kind.PROFILE, False),
    (boto.ProfileNotFound(profile="x"), False, Kind.PROFILE, False),
    (RuntimeError("the refreshed credentials are still expired."), False, Kind.PROFILE, False),
    (ConfigError("wrong"), False, Kind.PROFILE, False),
    (boto.ParamValidationError(report="Unknown parameter"), False, Kind.PERMANENT, False),
    (client_error("RunTask", "ThrottlingException"), True, Kind.THROTTLED, True),
    (client_error("RunTask", "ServerException", status=500), True, Kind.ANSWERED_5XX, True),
    (client_error("AssumeRole", "AccessDenied", "may not assume", 403), False, Kind.PROFILE, False),
    (client_error("AssumeRole", "Throttling", "Rate exceeded"), False, Kind.NEVER_SENT, False),
    (client_error("AssumeRole", "InternalFailure", "", 500), False, Kind.NEVER_SENT, False),
]


@pytest.mark.parametrize(("error", "sent", "kind", "was_sent"), EXCEPTIONS)
def test_an_exception_of_run_task_is_no_more_than_it_proves(
    error: Exception, sent: bool, kind: Kind, was_sent: bool
) -> None:
    answer = classify_exception(error, sent)
    assert (answer.kind, answer.sent) == (kind, was_sent)
    assert answer.reason
    assert answer.code


@given(
    code=st.text(max_size=20),
    message=st.text(max_size=40),
    status=st.sampled_from([0, 301, 400, 403, 404, 413, 429, 500, 502, 503, 504]),
)
def test_no_error_answer_is_unclassified_or_taken_for_a_start(code: str, message: str, status: int) -> None:
    answer = classify_error(code, message, status)
    assert answer.kind not in (Kind.STARTED, Kind.NEVER_SENT)
    if status >= 500:
        assert answer.kind in (Kind.ANSWERED_5XX, Kind.AMBIGUOUS, Kind.THROTTLED)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("DescribeTasks", "ThrottlingException"), TroubleKind.THROTTLED),
        (client_error("DescribeTasks", "ServerException", status=500), TroubleKind.UNAVAILABLE),
        (client_error("DescribeTasks", "502", status=502), TroubleKind.UNAVAILABLE),
        (client_error("DescribeTasks", "ExpiredTokenException"), TroubleKind.PROFILE),
        (client_error("DescribeTasks", "AccessDeniedException", "not authorized"), TroubleKind.DENIED),
        (client_error("DescribeTasks", "ClusterNotFoundException"), TroubleKind.GONE),
        (client_error("DescribeTasks", "InvalidParameterException", "Invalid id"), TroubleKind.INVALID),
        (client_error("AssumeRole", "AccessDenied", status=403), TroubleKind.PROFILE),
        (client_error("AssumeRole", "Throttling"), TroubleKind.THROTTLED),
        (boto.ReadTimeoutError(endpoint_url=URL), TroubleKind.UNAVAILABLE),
        (boto.EndpointConnectionError(endpoint_url=URL), TroubleKind.UNAVAILABLE),
        (boto.NoCredentialsError(), TroubleKind.PROFILE),
        (boto.ParamValidationError(report="x"), TroubleKind.INVALID),
        (KeyError("x"), TroubleKind.UNAVAILABLE),
    ],
)
def test_a_read_that_fails_says_whether_to_ask_again(error: Exception, kind: TroubleKind) -> None:
    trouble = read_trouble(error)
    assert trouble.kind is kind
    assert trouble.reason
    assert trouble.code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            client_error("StopTask", "InvalidParameterException", "The referenced task was not found."),
            StopKind.GONE,
        ),
        (client_error("StopTask", "ClusterNotFoundException"), StopKind.GONE),
        (client_error("StopTask", "ThrottlingException"), StopKind.THROTTLED),
        (client_error("StopTask", "AccessDeniedException", "not authorized"), StopKind.DENIED),
        (client_error("StopTask", "ExpiredTokenException"), StopKind.PROFILE),
        (client_error("StopTask", "InvalidParameterException", "bad"), StopKind.INVALID),
        (boto.ReadTimeoutError(endpoint_url=URL), StopKind.UNAVAILABLE),
    ],
)
def test_a_stop_that_fails_says_whether_to_order_it_again(error: Exception, kind: StopKind) -> None:
    assert stop_trouble(error).kind is kind


def test_secrets_in_validation_reports_and_urls_are_not_told() -> None:
    report = (
        "Invalid type for parameter overrides.x, value: {'PASSWORD': 'hun, type: ter2'}, "
        "type: <class 'dict'>, valid types: <class 'str'>"
    )
    answer = classify_exception(boto.ParamValidationError(report=report), sent=False)
    assert "ter2" not in answer.reason
    assert "overrides.x" in answer.reason
    told = read_trouble(boto.EndpointConnectionError(endpoint_url="https://user:hunter2@host/"))
    assert "hunter2" not in told.reason


def test_a_proxys_page_is_told_in_one_line() -> None:
    page = "<!doctype html>\n<title>502 Bad Gateway</title>\n<h1>nginx</h1>"
    reason = classify_error("502", page, 502).reason
    assert reason == "Whether ECS started a task is not known: 502 Bad Gateway nginx."


def test_a_long_reason_is_cut_before_the_advice() -> None:
    text = sentence("ECS refused the task", "x" * 5000, "AccessDeniedException", "Grant it.")
    assert len(text) <= MAX_REASON
    assert text.startswith("ECS refused the task: xxx")
    assert text.endswith("x.... Grant it.")
