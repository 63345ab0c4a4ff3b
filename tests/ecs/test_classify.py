"""Every error that AWS, botocore or a proxy is known to return, and what it proves."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.ecs.classify import (
    MAX_REASON_LENGTH,
    classify_error,
    classify_exception,
    classify_failures,
    classify_read_error,
    classify_response,
    classify_stop_error,
    format_reason,
)
from ecs_queue.errors import ConfigError
from ecs_queue.protocol.ecs_results import EcsErrorKind, RunTaskResultKind

URL = "https://ecs.eu-central-1.amazonaws.com/"
ARN = "arn:aws:ecs:eu-central-1:123456789012:task/jobs/1"

ERRORS: list[tuple[str, str, int, RunTaskResultKind]] = [
    # Throttles, plain and wrapped.
    ("ThrottlingException", "Rate exceeded", 400, RunTaskResultKind.THROTTLED),
    ("Throttling", "Rate exceeded", 400, RunTaskResultKind.THROTTLED),
    ("TooManyRequestsException", "slow down", 400, RunTaskResultKind.THROTTLED),
    ("RequestLimitExceeded", "Request limit exceeded.", 503, RunTaskResultKind.THROTTLED),
    ("LimitExceededException", "The limit for the number of calls was exceeded", 400, RunTaskResultKind.THROTTLED),
    ("429", "<html>Too Many Requests</html>", 429, RunTaskResultKind.THROTTLED),
    ("SomethingNew", "wait", 429, RunTaskResultKind.THROTTLED),
    ("ClientException", "Rate exceeded", 400, RunTaskResultKind.THROTTLED),
    (
        "InvalidParameterException",
        "Request limit exceeded. (Service: AmazonEC2; Status Code: 503; ErrorCode: RequestLimitExceeded)",
        400,
        RunTaskResultKind.THROTTLED,
    ),
    ("InvalidParameterException", "... (ErrorCode: Throttling; Request ID: 1)", 400, RunTaskResultKind.THROTTLED),
    ("ClientException", "Too many concurrent attempts to create a new revision", 400, RunTaskResultKind.THROTTLED),
    # Server errors: AWS's own, and those of what stands between.
    ("ServerException", "Service Unavailable. Please try again later.", 500, RunTaskResultKind.ANSWERED_5XX),
    ("ServerException", "Rate exceeded", 500, RunTaskResultKind.ANSWERED_5XX),
    ("ServerException", "oops", 0, RunTaskResultKind.ANSWERED_5XX),
    ("InternalFailure", "", 500, RunTaskResultKind.ANSWERED_5XX),
    ("ServiceUnavailableException", "", 503, RunTaskResultKind.ANSWERED_5XX),
    ("RequestTimeoutException", "Your socket was not read", 400, RunTaskResultKind.ANSWERED_5XX),
    ("502", "<html>Bad Gateway</html>", 502, RunTaskResultKind.AMBIGUOUS),
    ("503", "<html>Service Temporarily Unavailable</html>", 503, RunTaskResultKind.AMBIGUOUS),
    ("504", "<html>Gateway Time-out</html>", 504, RunTaskResultKind.AMBIGUOUS),
    ("GatewayTimeout", "", 504, RunTaskResultKind.AMBIGUOUS),
    ("", "", 500, RunTaskResultKind.AMBIGUOUS),
    # No room.
    ("ClientException", "Tasks provisioning capacity limit exceeded.", 400, RunTaskResultKind.CAPACITY),
    (
        "ClientException",
        "Capacity is unavailable at this time. Please try again later",
        400,
        RunTaskResultKind.CAPACITY,
    ),
    (
        "ClientException",
        "You've reached the limit on the number of vCPUs you can run concurrently",
        400,
        RunTaskResultKind.CAPACITY,
    ),
    (
        "ClientException",
        "You’ve reached the limit on the number of tasks you can run concurrently",
        400,
        RunTaskResultKind.CAPACITY,
    ),
    (
        "InvalidParameterException",
        "No Container Instances were found in your cluster.",
        400,
        RunTaskResultKind.CAPACITY,
    ),
    ("ServiceQuotaExceededException", "quota", 400, RunTaskResultKind.CAPACITY),
    # The profile: credentials, account, cluster, endpoint.
    (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        400,
        RunTaskResultKind.UNUSABLE_PROFILE,
    ),
    (
        "ExpiredTokenException",
        "The security token included in the request is expired",
        400,
        RunTaskResultKind.UNUSABLE_PROFILE,
    ),
    (
        "AccessDeniedException",
        "The security token included in the request is expired",
        400,
        RunTaskResultKind.UNUSABLE_PROFILE,
    ),
    (
        "InvalidSignatureException",
        "Signature expired: 2024 is now earlier than 2024",
        400,
        RunTaskResultKind.UNUSABLE_PROFILE,
    ),
    ("IncompleteSignatureException", "x", 400, RunTaskResultKind.UNUSABLE_PROFILE),
    ("MissingAuthenticationTokenException", "Missing Authentication Token", 403, RunTaskResultKind.UNUSABLE_PROFILE),
    ("OptInRequired", "You are not subscribed to this service", 403, RunTaskResultKind.UNUSABLE_PROFILE),
    ("BlockedException", "Your account is currently blocked.", 400, RunTaskResultKind.UNUSABLE_PROFILE),
    ("ClusterNotFoundException", "Cluster not found.", 400, RunTaskResultKind.UNUSABLE_PROFILE),
    ("InvalidParameterException", "The referenced cluster was inactive.", 400, RunTaskResultKind.UNUSABLE_PROFILE),
    ("InvalidParameterException", "Unable to assume the service linked role.", 400, RunTaskResultKind.UNUSABLE_PROFILE),
    ("UnknownOperationException", "", 404, RunTaskResultKind.UNUSABLE_PROFILE),
    ("403", "<html>Forbidden by policy</html>", 403, RunTaskResultKind.UNUSABLE_PROFILE),
    ("404", "", 404, RunTaskResultKind.UNUSABLE_PROFILE),
    ("301", "", 301, RunTaskResultKind.UNUSABLE_PROFILE),
    ("303", "", 303, RunTaskResultKind.UNUSABLE_PROFILE),
    ("304", "", 304, RunTaskResultKind.UNUSABLE_PROFILE),
    ("417", "", 417, RunTaskResultKind.UNUSABLE_PROFILE),
    ("421", "", 421, RunTaskResultKind.UNUSABLE_PROFILE),
    # A proxy that gave up.
    ("408", "<html>Request Time-out</html>", 408, RunTaskResultKind.AMBIGUOUS),
    ("425", "", 425, RunTaskResultKind.AMBIGUOUS),
    ("499", "", 499, RunTaskResultKind.AMBIGUOUS),
    # This request.
    (
        "AccessDeniedException",
        "User: x is not authorized to perform: ecs:RunTask",
        400,
        RunTaskResultKind.UNUSABLE_PROFILE,
    ),
    (
        "AccessDeniedException",
        "User: x is not authorized to perform: iam:PassRole",
        400,
        RunTaskResultKind.UNUSABLE_PROFILE,
    ),
    ("InvalidParameterException", "TaskDefinition is inactive", 400, RunTaskResultKind.PERMANENT),
    ("ClientException", "TaskDefinition not found.", 400, RunTaskResultKind.PERMANENT),
    (
        "InvalidParameterException",
        "Override for container named x is not a container in the TaskDefinition.",
        400,
        RunTaskResultKind.PERMANENT,
    ),
    ("InvalidParameterException", "Container Overrides length must be at most 8192", 400, RunTaskResultKind.PERMANENT),
    ("InvalidParameterException", "Placement constraint expression is invalid", 400, RunTaskResultKind.PERMANENT),
    ("InvalidParameterException", "Attributes must have a name", 400, RunTaskResultKind.PERMANENT),
    ("UnsupportedFeatureException", "no", 400, RunTaskResultKind.PERMANENT),
    ("PlatformUnknownException", "no", 400, RunTaskResultKind.PERMANENT),
    ("PlatformTaskDefinitionIncompatibilityException", "no", 400, RunTaskResultKind.PERMANENT),
    ("ValidationException", "no", 400, RunTaskResultKind.PERMANENT),
    ("400", "", 400, RunTaskResultKind.PERMANENT),
    ("SomethingNew", "a word never seen", 400, RunTaskResultKind.PERMANENT),
    ("ConflictException", "conflict", 400, RunTaskResultKind.CONFLICT),
]


@pytest.mark.parametrize(("code", "message", "status", "kind"), ERRORS)
def test_an_error_of_run_task_is_what_it_says(code: str, message: str, status: int, kind: RunTaskResultKind) -> None:
    result = classify_error(code, message, status)
    assert (result.kind, result.error_code, result.arn, result.was_sent) == (kind, code, None, True)
    assert result.reason


def test_the_reason_has_awss_message_and_the_next_step() -> None:
    result = classify_error("ClusterNotFoundException", "Cluster not found.", 400)
    assert result.reason == (
        "ECS cannot be used: Cluster not found (ClusterNotFoundException). "
        "Check `cluster` and `region_name` of the profile, or create the cluster."
    )


def test_a_conflict_names_the_tasks_of_the_token() -> None:
    assert classify_error("ConflictException", "", 400, [ARN]).conflicting_arns == (ARN,)


@pytest.mark.parametrize(
    ("failures", "kind", "code"),
    [
        ([{"reason": "RESOURCE:CPU"}], RunTaskResultKind.CAPACITY, "RESOURCE:CPU"),
        ([{"reason": "RESOURCE:MEMORY", "arn": "instance"}], RunTaskResultKind.CAPACITY, "RESOURCE:MEMORY"),
        ([{"reason": "RESOURCE:ENI"}], RunTaskResultKind.CAPACITY, "RESOURCE:ENI"),
        ([{"reason": "LOCATION"}], RunTaskResultKind.CAPACITY, "LOCATION"),
        ([{"reason": "ATTRIBUTE"}], RunTaskResultKind.CAPACITY, "ATTRIBUTE"),
        ([{"reason": "Capacity is unavailable at this time. Please try again later"}], RunTaskResultKind.CAPACITY, ""),
        ([{"reason": "You’ve reached the limit on the number of tasks you can run"}], RunTaskResultKind.CAPACITY, ""),
        ([{"reason": "You've reached the limit on the number of vCPUs you can"}], RunTaskResultKind.CAPACITY, ""),
        ([{"reason": "AGENT"}], RunTaskResultKind.CAPACITY, "AGENT"),
        ([{"reason": "SOMETHING NEW"}, {"reason": "RESOURCE:CPU"}], RunTaskResultKind.CAPACITY, "RESOURCE:CPU"),
        ([{"reason": "SOMETHING NEW"}], RunTaskResultKind.START_FAILURE, ""),
        ([{}], RunTaskResultKind.START_FAILURE, ""),
    ],
)
def test_failures_cost_an_attempt_unless_room_was_lacking(
    failures: list[dict[str, Any]], kind: RunTaskResultKind, code: str
) -> None:
    result = classify_failures(failures)
    assert (result.kind, result.error_code) == (kind, code)


def test_the_detail_and_the_different_reasons_of_failures_are_shown_once() -> None:
    result = classify_failures([{"reason": "AGENT", "detail": "disconnected"}, {"reason": "AGENT"}] * 3)
    assert result.reason == (
        "ECS cannot place the task now: AGENT (disconnected); AGENT. Check the ECS agent of the container instances."
    )


def test_a_task_is_a_start_even_when_it_has_stopped_since() -> None:
    replay = {
        "tasks": [{"taskArn": ARN, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"}],
        "failures": [],
    }
    result = classify_response(replay)
    assert (result.kind, result.arn) == (RunTaskResultKind.STARTED, ARN)


@pytest.mark.parametrize("response", [{}, {"tasks": [], "failures": []}, {"tasks": [{}]}, {"tasks": None}])
def test_a_response_without_task_and_failure_proves_nothing(response: dict[str, Any]) -> None:
    assert classify_response(response).kind is RunTaskResultKind.AMBIGUOUS


def client_error(operation: str, code: str, message: str = "", status: int = 400) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return boto.ClientError(response, operation)


class NewConnectionError(Exception):
    """Named like urllib3's."""


#: Older versions of botocore have no error for this.
UNKNOWN_TOKEN_PROVIDER = (
    boto.UnknownTokenProviderError(name="x") if hasattr(boto, "UnknownTokenProviderError") else boto.NoAuthTokenError()
)

EXCEPTIONS: list[tuple[Exception, bool, RunTaskResultKind, bool]] = [
    (boto.EndpointConnectionError(endpoint_url=URL, error="refused"), True, RunTaskResultKind.NEVER_SENT, False),
    (boto.ConnectTimeoutError(endpoint_url=URL), True, RunTaskResultKind.NEVER_SENT, False),
    (
        boto.SSLError(endpoint_url=URL, error="TLS handshake failed: x"),
        True,
        RunTaskResultKind.NEVER_SENT,
        False,
    ),
    (
        boto.SSLError(endpoint_url=URL, error="[SSL: WRONG_VERSION_NUMBER] where the answer is read"),
        True,
        RunTaskResultKind.AMBIGUOUS,
        True,
    ),
    (
        boto.SSLError(endpoint_url=URL, error="EOF occurred in violation of protocol"),
        True,
        RunTaskResultKind.AMBIGUOUS,
        True,
    ),
    (
        boto.ProxyConnectionError(proxy_url="http://p", error=NewConnectionError("refused")),
        True,
        RunTaskResultKind.NEVER_SENT,
        False,
    ),
    (
        boto.ProxyConnectionError(proxy_url="http://p", error=OSError("Tunnel connection failed: 407")),
        True,
        RunTaskResultKind.NEVER_SENT,
        False,
    ),
    (
        boto.ProxyConnectionError(proxy_url="http://p", error=OSError("reset by peer")),
        True,
        RunTaskResultKind.AMBIGUOUS,
        True,
    ),
    (boto.ReadTimeoutError(endpoint_url=URL), True, RunTaskResultKind.AMBIGUOUS, True),
    (boto.ConnectionClosedError(endpoint_url=URL), True, RunTaskResultKind.AMBIGUOUS, True),
    (boto.HTTPClientError(error="anything"), True, RunTaskResultKind.AMBIGUOUS, True),
    (boto.HTTPClientError(error="anything"), False, RunTaskResultKind.NEVER_SENT, False),
    (ValueError("unparsable"), True, RunTaskResultKind.AMBIGUOUS, True),
    (ValueError("before anything was sent"), False, RunTaskResultKind.NEVER_SENT, False),
    (boto.NoCredentialsError(), False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (getattr(boto, "LoginRefreshRequired", boto.NoAuthTokenError)(), False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (UNKNOWN_TOKEN_PROVIDER, False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (boto.PartialCredentialsError(provider="env", cred_var="x"), False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (
        boto.CredentialRetrievalError(provider="process", error_msg="x"),
        False,
        RunTaskResultKind.UNUSABLE_PROFILE,
        False,
    ),
    (boto.NoRegionError(), False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (boto.ProfileNotFound(profile="x"), False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (RuntimeError("the refreshed credentials are still expired."), False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (ConfigError("wrong"), False, RunTaskResultKind.UNUSABLE_PROFILE, False),
    (boto.ParamValidationError(report="Unknown parameter"), False, RunTaskResultKind.PERMANENT, False),
    (client_error("RunTask", "ThrottlingException"), True, RunTaskResultKind.THROTTLED, True),
    (client_error("RunTask", "ServerException", status=500), True, RunTaskResultKind.ANSWERED_5XX, True),
    (
        client_error("AssumeRole", "AccessDenied", "may not assume", 403),
        False,
        RunTaskResultKind.UNUSABLE_PROFILE,
        False,
    ),
    (client_error("AssumeRole", "Throttling", "Rate exceeded"), False, RunTaskResultKind.NEVER_SENT, False),
    (client_error("AssumeRole", "InternalFailure", "", 500), False, RunTaskResultKind.NEVER_SENT, False),
]


@pytest.mark.parametrize(("error", "sent", "kind", "was_sent"), EXCEPTIONS)
def test_an_exception_of_run_task_is_no_more_than_it_proves(
    error: Exception, sent: bool, kind: RunTaskResultKind, was_sent: bool
) -> None:
    result = classify_exception(error, sent)
    assert (result.kind, result.was_sent) == (kind, was_sent)
    assert result.reason
    assert result.error_code


@given(
    code=st.text(max_size=20),
    message=st.text(max_size=40),
    status=st.sampled_from([0, 301, 400, 403, 404, 413, 429, 500, 502, 503, 504]),
)
def test_no_error_response_is_unclassified_or_taken_for_a_start(code: str, message: str, status: int) -> None:
    result = classify_error(code, message, status)
    assert result.kind not in (RunTaskResultKind.STARTED, RunTaskResultKind.NEVER_SENT)
    if status >= 500:
        assert result.kind in (RunTaskResultKind.ANSWERED_5XX, RunTaskResultKind.AMBIGUOUS, RunTaskResultKind.THROTTLED)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("DescribeTasks", "ThrottlingException"), EcsErrorKind.THROTTLED),
        (client_error("DescribeTasks", "ServerException", status=500), EcsErrorKind.UNAVAILABLE),
        (client_error("DescribeTasks", "502", status=502), EcsErrorKind.UNAVAILABLE),
        (client_error("DescribeTasks", "ExpiredTokenException"), EcsErrorKind.UNUSABLE_PROFILE),
        (client_error("DescribeTasks", "AccessDeniedException", "not authorized"), EcsErrorKind.DENIED),
        (client_error("DescribeTasks", "ClusterNotFoundException"), EcsErrorKind.CLUSTER_NOT_FOUND),
        (client_error("DescribeTasks", "InvalidParameterException", "Invalid id"), EcsErrorKind.INVALID),
        (client_error("AssumeRole", "AccessDenied", status=403), EcsErrorKind.UNUSABLE_PROFILE),
        (client_error("AssumeRole", "Throttling"), EcsErrorKind.THROTTLED),
        (boto.ReadTimeoutError(endpoint_url=URL), EcsErrorKind.UNAVAILABLE),
        (boto.EndpointConnectionError(endpoint_url=URL), EcsErrorKind.UNAVAILABLE),
        (boto.NoCredentialsError(), EcsErrorKind.UNUSABLE_PROFILE),
        (boto.ParamValidationError(report="x"), EcsErrorKind.INVALID),
        (KeyError("x"), EcsErrorKind.UNAVAILABLE),
    ],
)
def test_a_read_that_fails_says_whether_to_ask_again(error: Exception, kind: EcsErrorKind) -> None:
    trouble = classify_read_error(error)
    assert trouble.kind is kind
    assert trouble.reason
    assert trouble.error_code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            client_error("StopTask", "InvalidParameterException", "The referenced task was not found."),
            EcsErrorKind.TASK_NOT_FOUND,
        ),
        (client_error("StopTask", "ClusterNotFoundException"), EcsErrorKind.TASK_NOT_FOUND),
        (client_error("StopTask", "ThrottlingException"), EcsErrorKind.THROTTLED),
        (client_error("StopTask", "AccessDeniedException", "not authorized"), EcsErrorKind.DENIED),
        (client_error("StopTask", "ExpiredTokenException"), EcsErrorKind.UNUSABLE_PROFILE),
        (client_error("StopTask", "InvalidParameterException", "bad"), EcsErrorKind.INVALID),
        (boto.ReadTimeoutError(endpoint_url=URL), EcsErrorKind.UNAVAILABLE),
    ],
)
def test_a_stop_that_fails_says_whether_to_order_it_again(error: Exception, kind: EcsErrorKind) -> None:
    assert classify_stop_error(error).kind is kind


def test_secrets_in_validation_reports_and_urls_are_not_shown() -> None:
    report = (
        "Invalid type for parameter overrides.x, value: {'PASSWORD': 'hun, type: ter2'}, "
        "type: <class 'dict'>, valid types: <class 'str'>"
    )
    result = classify_exception(boto.ParamValidationError(report=report), sent=False)
    assert "ter2" not in result.reason
    assert "overrides.x" in result.reason
    error = classify_read_error(boto.EndpointConnectionError(endpoint_url="https://user:hunter2@host/"))
    assert "hunter2" not in error.reason


def test_a_proxys_page_is_shown_in_one_line() -> None:
    page = "<!doctype html>\n<title>502 Bad Gateway</title>\n<h1>nginx</h1>"
    reason = classify_error("502", page, 502).reason
    assert reason == "Whether ECS started a task is not known: 502 Bad Gateway nginx."


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("no access to 123456740312", "no access to 123456740312 (403)"),
        ("no access to task/a403b", "no access to task/a403b (403)"),
        ("HTTP 403: no access", "HTTP 403: no access"),
    ],
)
def test_a_code_is_named_unless_the_message_does(detail: str, shown: str) -> None:
    assert format_reason("ECS cannot be used", detail, "403", "") == f"ECS cannot be used: {shown}."


def test_a_long_reason_is_cut_before_the_advice() -> None:
    text = format_reason("ECS refused the task", "x" * 5000, "AccessDeniedException", "Grant it.")
    assert len(text) <= MAX_REASON_LENGTH
    assert text.startswith("ECS refused the task: xxx")
    assert text.endswith("x.... Grant it.")
