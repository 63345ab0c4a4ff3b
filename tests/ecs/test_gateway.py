"""The gateway against botocore's stubber and against an endpoint that breaks in every way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.stub import Stubber

from ecs_queue.ecs.clients import ClientOptions, CredentialSource, EcsClients, HttpClient, Target
from ecs_queue.ecs.gateway import BotoEcsGateway, EcsGateway
from ecs_queue.errors import UsageError
from ecs_queue.findings import Reporter, Severity
from ecs_queue.local.redis_server import find_free_port
from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind, RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.observation import observe
from tests.ecs.scripted_endpoint import ScriptedEndpoint, ScriptedReply, error_reply, ok_reply
from tests.fake_clock import FakeClock

ARN = "arn:aws:ecs:eu-central-1:123456789012:task/jobs/0123456789abcdef0123456789abcdef"
OTHER = ARN.replace("0123", "4567")
KWARGS = {"taskDefinition": "job", "count": 1, "launchType": "FARGATE"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def gateway(clients: EcsClients, clock: FakeClock) -> BotoEcsGateway:
    return BotoEcsGateway(clients, clock)


def run_task(gateway: EcsGateway, target: Target, deadline: float = 1005.0, **kwargs: Any) -> RunTaskResult:
    return gateway.run_task(
        target, {**KWARGS, **kwargs}, client_token="id.nonce.1", started_by="ns/id/nonce/1", deadline=deadline
    )


def test_run_task_sends_token_started_by_and_cluster_once(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.enqueue(ok_reply(tasks=[{"taskArn": ARN, "createdAt": 1.5}], failures=[]))
    assert run_task(gateway, target, cluster="the profile's own") == RunTaskResult(RunTaskResultKind.STARTED, arn=ARN)
    assert [request.body for request in endpoint.requests] == [
        {**KWARGS, "cluster": "jobs", "clientToken": "id.nonce.1", "startedBy": "ns/id/nonce/1"}
    ]


def test_the_arguments_handed_in_stay_as_they_are(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.enqueue(ok_reply(tasks=[{"taskArn": ARN}]))
    kwargs = dict(KWARGS)
    gateway.run_task(target, kwargs, client_token="t", started_by="s", deadline=2000)
    assert kwargs == KWARGS


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (ScriptedReply(fault="hang"), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(fault="reset"), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b""), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b"{}"), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b"[]"), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b"<html>"), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b"\xff\xfe"), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b'{"tasks": null, "failures": {}}'), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b'["nothing"]', 500), RunTaskResultKind.AMBIGUOUS),
        (ScriptedReply(b"<html>Bad Gateway</html>", 502), RunTaskResultKind.AMBIGUOUS),
        (error_reply("ServerException", "oops", 500), RunTaskResultKind.ANSWERED_5XX),
        (error_reply("ThrottlingException", "Rate exceeded"), RunTaskResultKind.THROTTLED),
        (error_reply("com.amazonaws.ecs#ThrottlingException", "Rate exceeded"), RunTaskResultKind.THROTTLED),
        (ok_reply(tasks=[], failures=[{"reason": "RESOURCE:CPU"}]), RunTaskResultKind.CAPACITY),
        (ok_reply(tasks=[], failures=[{"reason": "AGENT"}]), RunTaskResultKind.CAPACITY),
        (error_reply("ClientException", "Tasks provisioning capacity limit exceeded."), RunTaskResultKind.CAPACITY),
        (
            error_reply("AccessDeniedException", "User is not authorized to perform: ecs:RunTask"),
            RunTaskResultKind.UNUSABLE_PROFILE,
        ),
        (error_reply("ExpiredTokenException", "expired"), RunTaskResultKind.UNUSABLE_PROFILE),
        (error_reply("ClusterNotFoundException", "Cluster not found."), RunTaskResultKind.UNUSABLE_PROFILE),
    ],
)
def test_whatever_the_endpoint_does_run_task_returns_and_does_not_retry(
    open_source: Callable[[str | None], CredentialSource],
    target: Target,
    endpoint: ScriptedEndpoint,
    clock: FakeClock,
    http_client: HttpClient,
    reply: ScriptedReply,
    kind: RunTaskResultKind,
) -> None:
    hangs = reply.fault == "hang"
    options = ClientOptions(1 if hangs else 5, 0.2 if hangs else 5, http_client=http_client)  # curl waits for the sum
    gateway = BotoEcsGateway(EcsClients(options, open_source=open_source), clock)
    endpoint.enqueue(reply)
    result = run_task(gateway, target)
    assert (result.kind, result.was_sent, result.arn) == (kind, True, None)
    assert result.reason
    assert endpoint.operations == ["RunTask"]


def test_a_conflict_names_the_existing_tasks(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.enqueue(error_reply("ConflictException", "conflict", resourceIds=[ARN, OTHER]))
    result = run_task(gateway, target)
    assert (result.kind, result.conflicting_arns) == (RunTaskResultKind.CONFLICT, (ARN, OTHER))


def test_a_refused_connection_is_never_sent(gateway: BotoEcsGateway) -> None:
    target = Target("eu-central-1", f"http://127.0.0.1:{find_free_port()}", None, "jobs")
    result = run_task(gateway, target)
    assert (result.kind, result.was_sent) == (RunTaskResultKind.NEVER_SENT, False)
    assert "Could not connect" in result.reason


def test_an_unreached_proxy_is_never_sent(gateway: BotoEcsGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{find_free_port()}")
    result = run_task(gateway, Target("eu-central-1", "https://ecs.invalid", None, "jobs"))
    assert (result.kind, result.was_sent) == (RunTaskResultKind.NEVER_SENT, False)
    assert "hunter2" not in result.reason


def test_after_the_deadline_nothing_is_sent(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: FakeClock
) -> None:
    result = run_task(gateway, target, deadline=clock.now - 0.5)
    assert (result.kind, result.was_sent, result.error_code) == (
        RunTaskResultKind.NEVER_SENT,
        False,
        "CallBudgetExceeded",
    )
    assert "0.5 s after the call budget" in result.reason
    assert endpoint.requests == []


def test_a_worker_paused_while_it_signs_sends_nothing(
    clients: EcsClients, gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: FakeClock
) -> None:
    def pause(**_kwargs: object) -> None:
        clock.advance(60)

    clients.client(target).meta.events.register("request-created.ecs.RunTask", pause)
    assert run_task(gateway, target, deadline=clock.now + 5).kind is RunTaskResultKind.NEVER_SENT
    assert endpoint.requests == []


def test_a_pause_in_the_last_handler_before_sending_is_noticed_too(
    clients: EcsClients, gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: FakeClock
) -> None:
    def pause(**_kwargs: object) -> None:
        clock.advance(60)

    clients.client(target).meta.events.register("before-send.ecs.RunTask", pause)
    assert run_task(gateway, target, deadline=clock.now + 5).kind is RunTaskResultKind.NEVER_SENT
    assert endpoint.requests == []


def test_each_thread_has_its_own_deadline(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, clock: FakeClock
) -> None:
    endpoint.enqueue(*[ok_reply(tasks=[{"taskArn": ARN}])] * 8)
    barrier = threading.Barrier(8)

    def call(number: int) -> RunTaskResultKind:
        barrier.wait()
        return run_task(gateway, target, deadline=clock.now + (1 if number % 2 else -1)).kind

    with ThreadPoolExecutor(8) as pool:
        kinds = list(pool.map(call, range(8)))
    assert kinds == [RunTaskResultKind.NEVER_SENT, RunTaskResultKind.STARTED] * 4
    assert len(endpoint.requests) == 4


def test_two_gateways_over_the_same_clients_both_keep_their_deadlines(
    clients: EcsClients, target: Target, endpoint: ScriptedEndpoint, clock: FakeClock
) -> None:
    endpoint.enqueue(*[ok_reply(tasks=[{"taskArn": ARN}])] * 2)
    for gateway in (BotoEcsGateway(clients, clock), BotoEcsGateway(clients, clock)):
        assert run_task(gateway, target, deadline=clock.now - 1).kind is RunTaskResultKind.NEVER_SENT
        assert run_task(gateway, target, deadline=clock.now + 1).kind is RunTaskResultKind.STARTED


def test_without_credentials_the_profile_is_to_blame(
    gateway: BotoEcsGateway, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    result = run_task(gateway, target)
    assert (result.kind, result.was_sent, result.error_code) == (
        RunTaskResultKind.UNUSABLE_PROFILE,
        False,
        "NoCredentialsError",
    )


def test_an_unusable_endpoint_is_the_profiles_fault(gateway: BotoEcsGateway) -> None:
    result = run_task(gateway, Target("eu-central-1", "nonsense", None, "jobs"))
    assert (result.kind, result.was_sent, result.error_code) == (
        RunTaskResultKind.UNUSABLE_PROFILE,
        False,
        "ConfigError",
    )


def test_a_role_that_cannot_be_assumed_is_the_profiles_fault(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)
    denied = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    endpoint.enqueue(ScriptedReply(denied, 403))
    result = run_task(gateway, Target(target.region, target.endpoint_url, "arn:aws:iam::123456789012:role/r", "jobs"))
    assert (result.kind, result.was_sent) == (RunTaskResultKind.UNUSABLE_PROFILE, False)
    assert "the role could not be assumed" in result.reason
    assert endpoint.operations == [""]


def test_renewed_credentials_are_used_without_a_restart(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.enqueue(error_reply("ExpiredTokenException", "expired"), ok_reply(tasks=[{"taskArn": ARN}]))
    assert run_task(gateway, target).kind is RunTaskResultKind.UNUSABLE_PROFILE
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
    assert run_task(gateway, target).kind is RunTaskResultKind.STARTED
    assert "Credential=renewed/" in endpoint.requests[1].headers["Authorization"]


def test_arguments_that_botocore_refuses_are_permanent_and_their_values_stay_secret(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    result = run_task(gateway, target, overrides={"containerOverrides": [{"environment": {"hunter2": "x"}}]})
    assert (result.kind, result.was_sent) == (RunTaskResultKind.PERMANENT, False)
    assert "hunter2" not in result.reason
    assert endpoint.requests == []


def test_an_error_of_our_own_is_a_result_too(clock: FakeClock, target: Target) -> None:
    class Broken(EcsClients):
        def client(self, target: Target) -> Any:
            raise KeyError("unforeseen")

    result = run_task(BotoEcsGateway(Broken(), clock), target)
    assert (result.kind, result.was_sent, result.error_code) == (RunTaskResultKind.NEVER_SENT, False, "KeyError")


def test_describe_gives_tasks_missing_and_other_failures(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    shown = {"taskArn": ARN, "lastStatus": "RUNNING", "startedAt": 1_700_000_000.5, "version": 3}
    failures = [{"arn": OTHER, "reason": "MISSING"}, {"arn": "x", "reason": "ACCESS_DENIED"}]
    endpoint.enqueue(ok_reply(tasks=[shown], failures=failures))
    result = gateway.describe_tasks(target, [ARN, OTHER, "x"])
    assert (result.tasks, result.missing_arns, result.other_failures) == ([shown], [OTHER], {"x": "ACCESS_DENIED"})
    assert result.error is None
    assert observe(result.tasks[0], "main").started_at == 1_700_000_000.5
    assert endpoint.requests[0].body == {"cluster": "jobs", "tasks": [ARN, OTHER, "x"]}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (ScriptedReply(b""), EcsErrorKind.UNAVAILABLE),
        (ScriptedReply(b"<html>"), EcsErrorKind.UNAVAILABLE),
        (ScriptedReply(fault="reset"), EcsErrorKind.UNAVAILABLE),
        (error_reply("ServerException", "oops", 500), EcsErrorKind.UNAVAILABLE),
        (error_reply("ThrottlingException", "Rate exceeded"), EcsErrorKind.THROTTLED),
        (error_reply("ClusterNotFoundException", "Cluster not found."), EcsErrorKind.CLUSTER_NOT_FOUND),
        (error_reply("AccessDeniedException", "not authorized"), EcsErrorKind.DENIED),
        (error_reply("UnrecognizedClientException", "bad token"), EcsErrorKind.UNUSABLE_PROFILE),
        (error_reply("InvalidParameterException", "Invalid identifier"), EcsErrorKind.INVALID),
    ],
)
def test_a_describe_that_fails_says_nothing_about_any_task(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, reply: ScriptedReply, kind: EcsErrorKind
) -> None:
    endpoint.enqueue(reply)
    result = gateway.describe_tasks(target, [ARN])
    assert (result.tasks, result.missing_arns, dict(result.other_failures)) == ([], [], {})
    assert result.error is not None
    assert result.error.kind is kind
    assert len(endpoint.requests) == 1


def test_describe_takes_a_hundred_and_asks_nothing_for_none(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    with pytest.raises(UsageError, match="101"):
        gateway.describe_tasks(target, [ARN] * 101)
    assert gateway.describe_tasks(target, []).error is None
    assert endpoint.requests == []


def test_a_describe_without_credentials_is_an_error_of_the_profile(
    gateway: BotoEcsGateway, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    trouble = gateway.describe_tasks(target, [ARN]).error
    assert trouble is not None
    assert (trouble.kind, trouble.error_code) == (EcsErrorKind.UNUSABLE_PROFILE, "NoCredentialsError")


def test_stop_cuts_the_reason_and_returns_the_task(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.enqueue(ok_reply(task={"taskArn": ARN, "lastStatus": "STOPPING"}))
    result = gateway.stop_task(target, ARN, "r" * 300)
    assert result.error is None
    assert result.task == {"taskArn": ARN, "lastStatus": "STOPPING"}
    assert endpoint.requests[0].body == {"cluster": "jobs", "task": ARN, "reason": "r" * 255}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (
            error_reply("InvalidParameterException", "The referenced task was not found."),
            EcsErrorKind.TASK_NOT_FOUND,
        ),
        (error_reply("ThrottlingException", "Rate exceeded"), EcsErrorKind.THROTTLED),
        (error_reply("ServerException", "", 500), EcsErrorKind.UNAVAILABLE),
        (error_reply("AccessDeniedException", "not authorized to perform: ecs:StopTask"), EcsErrorKind.DENIED),
        (ScriptedReply(fault="reset"), EcsErrorKind.UNAVAILABLE),
    ],
)
def test_a_stop_that_fails_says_how(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, reply: ScriptedReply, kind: EcsErrorKind
) -> None:
    endpoint.enqueue(reply)
    error = gateway.stop_task(target, ARN, "asked to").error
    assert error is not None
    assert error.kind is kind
    assert error.reason


def test_list_asks_for_running_then_stopped_and_follows_pages(clients: EcsClients, clock: FakeClock) -> None:
    target = Target("eu-central-1", None, None, "jobs")
    asked = {"cluster": "jobs", "startedBy": "s"}
    with Stubber(clients.client(target)) as stub:
        stub.add_response("list_tasks", {"taskArns": [ARN], "nextToken": "2"}, {**asked, "desiredStatus": "RUNNING"})
        stub.add_response("list_tasks", {"taskArns": []}, {**asked, "desiredStatus": "RUNNING", "nextToken": "2"})
        stub.add_response("list_tasks", {"taskArns": [ARN, OTHER]}, {**asked, "desiredStatus": "STOPPED"})
        result = BotoEcsGateway(clients, clock).list_tasks(target, "s", "family")
        stub.assert_no_pending_responses()
    assert (result.arns, result.error) == ([ARN, OTHER], None)


@pytest.mark.parametrize(
    "second",
    [
        error_reply("ThrottlingException", "Rate exceeded"),
        ScriptedReply(b"{}"),
        ok_reply(taskArns=[], nextToken="same"),
    ],
)
def test_a_list_that_breaks_off_keeps_what_it_found_and_proves_no_absence(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, second: ScriptedReply
) -> None:
    endpoint.enqueue(ok_reply(taskArns=[ARN], nextToken="same"), second)
    result = gateway.list_tasks(target, "s", "family")
    assert result.arns == [ARN]
    assert result.error is not None
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("reply", "finding"),
    [
        (ok_reply(clusters=[], failures=[{"reason": "MISSING"}]), "does not exist"),
        (ok_reply(clusters=[{"status": "INACTIVE"}]), "is INACTIVE"),
        (error_reply("AccessDeniedException", "not authorized"), "check_health_on_startup"),
        (error_reply("ExpiredTokenException", "expired"), "Renew the credentials"),
        (ScriptedReply(fault="reset"), "cannot be used"),
    ],
)
def test_check_says_what_stands_in_the_way(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, reply: ScriptedReply, finding: str
) -> None:
    endpoint.enqueue(reply)
    found = gateway.check_cluster(target, Reporter("q"))
    assert finding in found.sentence
    assert found.text.startswith("cluster jobs in eu-central-1 ")
    assert found.severity is (Severity.INFO if "cannot be checked" in found.text else Severity.ERROR)


@pytest.mark.parametrize("strategy", [[], [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]])
def test_the_default_strategy_of_a_cluster_is_read(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, strategy: list[dict[str, Any]]
) -> None:
    endpoint.enqueue(ok_reply(clusters=[{"status": "ACTIVE", "defaultCapacityProviderStrategy": strategy}]))
    assert gateway.default_strategy(target) == tuple(strategy)


def test_check_finds_nothing_wrong_with_an_active_cluster(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    endpoint.enqueue(ok_reply(clusters=[{"status": "ACTIVE"}]))
    assert gateway.check_cluster(target, Reporter("q")).severity is Severity.OK
    assert endpoint.requests[0].body == {"clusters": ["jobs"]}


_REFUSED_PAIR = error_reply("InvalidParameterException", "startedBy must be the only filter that you use")


def test_a_list_that_takes_started_by_only_alone_finds_stopped_tasks_by_their_family(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint
) -> None:
    stopped = [f"arn:{number}" for number in range(150)]
    shown = [
        [{"taskArn": arn, "startedBy": "s" if arn == "arn:120" else "t"} for arn in part]
        for part in (stopped[:100], stopped[100:])
    ]
    endpoint.enqueue(_REFUSED_PAIR, ok_reply(taskArns=[]), ok_reply(taskArns=stopped))
    endpoint.enqueue(*(ok_reply(tasks=part, failures=[]) for part in shown))
    result = gateway.list_tasks(target, "s", "family")
    assert (result.arns, result.error, result.calls) == (["arn:120"], None, 5)
    bodies = [request.body for request in endpoint.requests]
    assert bodies[1] == {"cluster": "jobs", "startedBy": "s"}
    assert bodies[2] == {"cluster": "jobs", "family": "family", "desiredStatus": "STOPPED"}
    assert [len(body["tasks"]) for body in bodies[3:]] == [100, 50]


@pytest.mark.parametrize(
    ("replies", "family"),
    [
        ([_REFUSED_PAIR, ok_reply(taskArns=[])], ""),
        ([_REFUSED_PAIR, _REFUSED_PAIR], "family"),
        ([_REFUSED_PAIR, ok_reply(taskArns=[]), ScriptedReply(b"<html>")], "family"),
        ([_REFUSED_PAIR, ok_reply(taskArns=[]), ok_reply(taskArns=[ARN]), ScriptedReply(b"{}")], "family"),
        (
            [
                _REFUSED_PAIR,
                ok_reply(taskArns=[]),
                ok_reply(taskArns=[ARN]),
                ok_reply(tasks=[], failures=[{"arn": ARN, "reason": "ACCESS_DENIED"}]),
            ],
            "family",
        ),
    ],
    ids=["no family", "refused alone", "foreign list", "foreign description", "undescribed"],
)
def test_such_a_list_proves_no_absence_unless_every_part_of_it_was_answered(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, replies: list[ScriptedReply], family: str
) -> None:
    endpoint.enqueue(*replies)
    result = gateway.list_tasks(target, "s", family)
    assert (result.arns, len(endpoint.requests)) == ([], len(replies))
    assert result.error is not None


@pytest.mark.parametrize("page", [b"<html><body>Please log in</body></html>", b"{}", b"", b'{"message": "ok"}', b"[]"])
def test_an_answer_without_the_members_of_ecs_proves_nothing_whatever_the_operation(
    gateway: BotoEcsGateway, target: Target, endpoint: ScriptedEndpoint, page: bytes
) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "run_task": lambda: run_task(gateway, target).kind,
        "describe_tasks": lambda: _kind(gateway.describe_tasks(target, [ARN]).error),
        "list_tasks": lambda: _kind(gateway.list_tasks(target, "s", "family").error),
        "stop_task": lambda: _kind(gateway.stop_task(target, ARN, "asked to").error),
        "check_cluster": lambda: "does not exist" in gateway.check_cluster(target, Reporter("q")).text,
        "default_strategy": lambda: isinstance(gateway.default_strategy(target), EcsError),
    }
    found = {}
    for name, call in calls.items():
        endpoint.enqueue(ScriptedReply(page))
        found[name] = call()
    unavailable = EcsErrorKind.UNAVAILABLE
    assert found == {
        "run_task": RunTaskResultKind.AMBIGUOUS,
        "describe_tasks": unavailable,
        "list_tasks": unavailable,
        "stop_task": unavailable,
        "check_cluster": False,
        "default_strategy": True,
    }
    assert found.keys() == {name for name in vars(EcsGateway) if not name.startswith("_")}


def _kind(error: EcsError | None) -> EcsErrorKind | None:
    return error.kind if error is not None else None
