"""The gateway against botocore's stubber and against an endpoint that breaks in every way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.stub import Stubber

from ecs_queue.core.answers import Kind, RunAnswer, StopKind, TroubleKind
from ecs_queue.core.verdict import observe
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Source, Target
from ecs_queue.ecs.gateway import BotoEcsGateway, EcsGateway
from ecs_queue.errors import UsageError
from tests.ecs.scripted_endpoint import Reply, ScriptedEndpoint, error, ok

ARN = "arn:aws:ecs:eu-central-1:123456789012:task/jobs/0123456789abcdef0123456789abcdef"
OTHER = ARN.replace("0123", "4567")
KWARGS = {"taskDefinition": "job", "count": 1, "launchType": "FARGATE"}


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(clients: EcsClients, clock: Clock) -> BotoEcsGateway:
    return BotoEcsGateway(clients, clock)


def run(gateway: EcsGateway, target: Target, deadline: float = 1005.0, **kwargs: Any) -> RunAnswer:
    return gateway.run_task(
        target, {**KWARGS, **kwargs}, client_token="id.nonce.1", started_by="ns/id/nonce/1", deadline=deadline
    )


def test_run_task_sends_token_started_by_and_cluster_once(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.answers(ok(tasks=[{"taskArn": ARN, "createdAt": 1.5}], failures=[]))
    assert run(gateway, target, cluster="the profile's own") == RunAnswer(Kind.STARTED, arn=ARN)
    assert [request.body for request in endpoint.seen] == [
        {**KWARGS, "cluster": "jobs", "clientToken": "id.nonce.1", "startedBy": "ns/id/nonce/1"}
    ]


def test_the_arguments_handed_in_stay_as_they_are(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.answers(ok(tasks=[{"taskArn": ARN}]))
    kwargs = dict(KWARGS)
    gateway.run_task(target, kwargs, client_token="t", started_by="s", deadline=2000)
    assert kwargs == KWARGS


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(fault="hang"), Kind.AMBIGUOUS),
        (Reply(fault="reset"), Kind.AMBIGUOUS),
        (Reply(b""), Kind.AMBIGUOUS),
        (Reply(b"{}"), Kind.AMBIGUOUS),
        (Reply(b"[]"), Kind.AMBIGUOUS),
        (Reply(b"<html>"), Kind.AMBIGUOUS),
        (Reply(b"\xff\xfe"), Kind.AMBIGUOUS),
        (Reply(b'{"tasks": null, "failures": {}}'), Kind.AMBIGUOUS),
        (Reply(b'["nothing"]', 500), Kind.AMBIGUOUS),
        (Reply(b"<html>Bad Gateway</html>", 502), Kind.AMBIGUOUS),
        (error("ServerException", "oops", 500), Kind.ANSWERED_5XX),
        (error("ThrottlingException", "Rate exceeded"), Kind.THROTTLED),
        (error("com.amazonaws.ecs#ThrottlingException", "Rate exceeded"), Kind.THROTTLED),
        (ok(tasks=[], failures=[{"reason": "RESOURCE:CPU"}]), Kind.CAPACITY),
        (ok(tasks=[], failures=[{"reason": "AGENT"}]), Kind.START_FAILURE),
        (error("ClientException", "Tasks provisioning capacity limit exceeded."), Kind.CAPACITY),
        (error("AccessDeniedException", "User is not authorized to perform: ecs:RunTask"), Kind.PERMANENT),
        (error("ExpiredTokenException", "expired"), Kind.PROFILE),
        (error("ClusterNotFoundException", "Cluster not found."), Kind.PROFILE),
    ],
)
def test_whatever_the_endpoint_does_run_task_answers_and_does_not_retry(
    source: Callable[[str | None], Source],
    target: Target,
    endpoint: ScriptedEndpoint,
    clock: Clock,
    reply: Reply,
    kind: Kind,
) -> None:
    options = ClientOptions(read_timeout=0.2 if reply.fault == "hang" else 5)
    gateway = BotoEcsGateway(EcsClients(options, source=source), clock)
    endpoint.answers(reply)
    answer = run(gateway, target)
    assert (answer.kind, answer.sent, answer.arn) == (kind, True, None)
    assert answer.reason
    assert endpoint.operations == ["RunTask"]


def test_a_conflict_names_the_existing_tasks(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.answers(error("ConflictException", "conflict", resourceIds=[ARN, OTHER]))
    answer = run(gateway, target)
    assert (answer.kind, answer.conflicting) == (Kind.CONFLICT, (ARN, OTHER))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_refused_connection_is_never_sent(gateway: BotoEcsGateway) -> None:
    target = Target("eu-central-1", f"http://127.0.0.1:{free_port()}", None, "jobs")
    answer = run(gateway, target)
    assert (answer.kind, answer.sent) == (Kind.NEVER_SENT, False)
    assert "Could not connect" in answer.reason


def test_an_unreached_proxy_is_never_sent(gateway: BotoEcsGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{free_port()}")
    answer = run(gateway, Target("eu-central-1", "https://ecs.invalid", None, "jobs"))
    assert (answer.kind, answer.sent) == (Kind.NEVER_SENT, False)
    assert "hunter2" not in answer.reason


def test_after_the_deadline_nothing_is_sent(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: Clock
) -> None:
    answer = run(gateway, target, deadline=clock.now - 0.5)
    assert (answer.kind, answer.sent, answer.code) == (Kind.NEVER_SENT, False, "CallBudgetOver")
    assert "0.5 s after the call budget" in answer.reason
    assert endpoint.seen == []


def test_a_worker_paused_while_it_signs_sends_nothing(
    clients: EcsClients, gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: Clock
) -> None:
    def pause(**_kwargs: object) -> None:
        clock.now += 60

    clients.client(target).meta.events.register("request-created.ecs.RunTask", pause)
    assert run(gateway, target, deadline=clock.now + 5).kind is Kind.NEVER_SENT
    assert endpoint.seen == []


def test_a_pause_in_the_last_handler_before_sending_is_noticed_too(
    clients: EcsClients, gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: Clock
) -> None:
    def pause(**_kwargs: object) -> None:
        clock.now += 60

    clients.client(target).meta.events.register("before-send.ecs.RunTask", pause)
    assert run(gateway, target, deadline=clock.now + 5).kind is Kind.NEVER_SENT
    assert endpoint.seen == []


def test_each_thread_has_its_own_deadline(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: Clock
) -> None:
    endpoint.answers(*[ok(tasks=[{"taskArn": ARN}])] * 8)
    barrier = threading.Barrier(8)

    def call(number: int) -> Kind:
        barrier.wait()
        return run(gateway, target, deadline=clock.now + (1 if number % 2 else -1)).kind

    with ThreadPoolExecutor(8) as pool:
        kinds = list(pool.map(call, range(8)))
    assert kinds == [Kind.NEVER_SENT, Kind.STARTED] * 4
    assert len(endpoint.seen) == 4


def test_two_gateways_over_the_same_clients_both_keep_their_deadlines(
    clients: EcsClients, target: Target, endpoint: ScriptedEndpoint, clock: Clock
) -> None:
    endpoint.answers(*[ok(tasks=[{"taskArn": ARN}])] * 2)
    for gateway in (BotoEcsGateway(clients, clock), BotoEcsGateway(clients, clock)):
        assert run(gateway, target, deadline=clock.now - 1).kind is Kind.NEVER_SENT
        assert run(gateway, target, deadline=clock.now + 1).kind is Kind.STARTED


def test_without_credentials_the_profile_is_to_blame(
    gateway: BotoEcsGateway, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    answer = run(gateway, target)
    assert (answer.kind, answer.sent, answer.code) == (Kind.PROFILE, False, "NoCredentialsError")


def test_an_unusable_endpoint_is_the_profiles_fault(gateway: BotoEcsGateway) -> None:
    answer = run(gateway, Target("eu-central-1", "nonsense", None, "jobs"))
    assert (answer.kind, answer.sent, answer.code) == (Kind.PROFILE, False, "ConfigError")


def test_a_role_that_cannot_be_assumed_is_the_profiles_fault(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)
    denied = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    endpoint.answers(Reply(denied, 403))
    answer = run(gateway, Target(target.region, target.endpoint_url, "arn:aws:iam::123456789012:role/r", "jobs"))
    assert (answer.kind, answer.sent) == (Kind.PROFILE, False)
    assert "the role could not be assumed" in answer.reason
    assert endpoint.operations == [""]


def test_renewed_credentials_are_used_without_a_restart(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.answers(error("ExpiredTokenException", "expired"), ok(tasks=[{"taskArn": ARN}]))
    assert run(gateway, target).kind is Kind.PROFILE
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
    assert run(gateway, target).kind is Kind.STARTED
    assert "Credential=renewed/" in endpoint.seen[1].headers["Authorization"]


def test_arguments_that_botocore_refuses_are_permanent_and_their_values_stay_secret(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    answer = run(gateway, target, overrides={"containerOverrides": [{"environment": {"hunter2": "x"}}]})
    assert (answer.kind, answer.sent) == (Kind.PERMANENT, False)
    assert "hunter2" not in answer.reason
    assert endpoint.seen == []


def test_an_error_of_our_own_hands_is_an_answer_too(clock: Clock, target: Target) -> None:
    class Broken(EcsClients):
        def client(self, target: Target) -> Any:
            raise KeyError("unforeseen")

    answer = run(BotoEcsGateway(Broken(), clock), target)
    assert (answer.kind, answer.sent, answer.code) == (Kind.NEVER_SENT, False, "KeyError")


def test_describe_gives_tasks_missing_and_other_failures(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    shown = {"taskArn": ARN, "lastStatus": "RUNNING", "startedAt": 1_700_000_000.5, "version": 3}
    failures = [{"arn": OTHER, "reason": "MISSING"}, {"arn": "x", "reason": "ACCESS_DENIED"}]
    endpoint.answers(ok(tasks=[shown], failures=failures))
    answer = gateway.describe_tasks(target, [ARN, OTHER, "x"])
    assert (answer.tasks, answer.missing, answer.other) == ([shown], [OTHER], {"x": "ACCESS_DENIED"})
    assert answer.trouble is None
    assert observe(answer.tasks[0], "main").started_at == 1_700_000_000.5
    assert endpoint.seen[0].body == {"cluster": "jobs", "tasks": [ARN, OTHER, "x"]}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(b""), TroubleKind.UNAVAILABLE),
        (Reply(b"<html>"), TroubleKind.UNAVAILABLE),
        (Reply(fault="reset"), TroubleKind.UNAVAILABLE),
        (error("ServerException", "oops", 500), TroubleKind.UNAVAILABLE),
        (error("ThrottlingException", "Rate exceeded"), TroubleKind.THROTTLED),
        (error("ClusterNotFoundException", "Cluster not found."), TroubleKind.GONE),
        (error("AccessDeniedException", "not authorized"), TroubleKind.DENIED),
        (error("UnrecognizedClientException", "bad token"), TroubleKind.PROFILE),
        (error("InvalidParameterException", "Invalid identifier"), TroubleKind.INVALID),
    ],
)
def test_a_describe_that_fails_says_nothing_about_any_task(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, reply: Reply, kind: TroubleKind
) -> None:
    endpoint.answers(reply)
    answer = gateway.describe_tasks(target, [ARN])
    assert (answer.tasks, answer.missing, dict(answer.other)) == ([], [], {})
    assert answer.trouble is not None
    assert answer.trouble.kind is kind
    assert len(endpoint.seen) == 1


def test_describe_takes_a_hundred_and_asks_nothing_for_none(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    with pytest.raises(UsageError, match="101"):
        gateway.describe_tasks(target, [ARN] * 101)
    assert gateway.describe_tasks(target, []).trouble is None
    assert endpoint.seen == []


def test_a_describe_without_credentials_is_the_profiles_trouble(
    gateway: BotoEcsGateway, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    trouble = gateway.describe_tasks(target, [ARN]).trouble
    assert trouble is not None
    assert (trouble.kind, trouble.code) == (TroubleKind.PROFILE, "NoCredentialsError")


def test_stop_cuts_the_reason_and_returns_the_task(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.answers(ok(task={"taskArn": ARN, "lastStatus": "STOPPING"}))
    answer = gateway.stop_task(target, ARN, "r" * 300)
    assert answer.kind is StopKind.OK
    assert answer.task == {"taskArn": ARN, "lastStatus": "STOPPING"}
    assert endpoint.seen[0].body == {"cluster": "jobs", "task": ARN, "reason": "r" * 255}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error("InvalidParameterException", "The referenced task was not found."), StopKind.GONE),
        (error("ThrottlingException", "Rate exceeded"), StopKind.THROTTLED),
        (error("ServerException", "", 500), StopKind.UNAVAILABLE),
        (error("AccessDeniedException", "not authorized to perform: ecs:StopTask"), StopKind.DENIED),
        (Reply(fault="reset"), StopKind.UNAVAILABLE),
    ],
)
def test_a_stop_that_fails_says_how(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, reply: Reply, kind: StopKind
) -> None:
    endpoint.answers(reply)
    answer = gateway.stop_task(target, ARN, "asked to")
    assert answer.kind is kind
    assert answer.reason


def test_list_asks_for_running_then_stopped_and_follows_pages(clients: EcsClients, clock: Clock) -> None:
    target = Target("eu-central-1", None, None, "jobs")
    asked = {"cluster": "jobs", "startedBy": "s"}
    with Stubber(clients.client(target)) as stub:
        stub.add_response("list_tasks", {"taskArns": [ARN], "nextToken": "2"}, {**asked, "desiredStatus": "RUNNING"})
        stub.add_response("list_tasks", {"taskArns": []}, {**asked, "desiredStatus": "RUNNING", "nextToken": "2"})
        stub.add_response("list_tasks", {"taskArns": [ARN, OTHER]}, {**asked, "desiredStatus": "STOPPED"})
        answer = BotoEcsGateway(clients, clock).list_tasks(target, "s")
        stub.assert_no_pending_responses()
    assert (answer.arns, answer.trouble) == ([ARN, OTHER], None)


@pytest.mark.parametrize(
    "second", [error("ThrottlingException", "Rate exceeded"), Reply(b"{}"), ok(taskArns=[], nextToken="same")]
)
def test_a_list_that_breaks_off_keeps_what_it_found_and_proves_no_absence(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, second: Reply
) -> None:
    endpoint.answers(ok(taskArns=[ARN], nextToken="same"), second)
    answer = gateway.list_tasks(target, "s")
    assert answer.arns == [ARN]
    assert answer.trouble is not None
    assert len(endpoint.seen) == 2


@pytest.mark.parametrize(
    ("reply", "finding"),
    [
        (ok(clusters=[], failures=[{"reason": "MISSING"}]), "does not exist"),
        (ok(clusters=[{"status": "INACTIVE"}]), "is INACTIVE"),
        (error("AccessDeniedException", "not authorized"), "check_health_on_startup"),
        (error("ExpiredTokenException", "expired"), "Renew the credentials"),
        (Reply(fault="reset"), "cannot be used"),
    ],
)
def test_check_says_what_stands_in_the_way(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, reply: Reply, finding: str
) -> None:
    endpoint.answers(reply)
    findings = gateway.check(target)
    assert len(findings) == 1
    assert finding in findings[0]
    assert findings[0].startswith("Cluster jobs in eu-central-1 ")


def test_check_finds_nothing_wrong_with_an_active_cluster(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.answers(ok(clusters=[{"status": "ACTIVE"}]))
    assert gateway.check(target) == []
    assert endpoint.seen[0].body == {"clusters": ["jobs"]}
