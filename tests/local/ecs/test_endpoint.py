"""The HTTP endpoint: headers, pages, delays, quotas and faults."""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from ecs_queue.local.ecs import FaultOptions, LocalEcs, Quota, TimerRunner
from tests.local.ecs.checked_client import command_override, run_task, wait_for_status
from tests.local.ecs.conftest import StartEcs

TARGET = "AmazonEC2ContainerServiceV20141113"
LOCAL = {"cluster": "local", "taskDefinition": "local"}


def _request(
    server: LocalEcs, method: str = "POST", path: str = "/", body: str = "{}", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def _code(call: Any, **parameters: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_unknown_operation_is_refused_with_the_known_ones(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    with pytest.raises(ClientError, match=r"has no ListServices; it has CreateCluster, .*StopTask"):
        client.list_services()


@pytest.mark.parametrize("target", ["", "RunTask", "AmazonSQS.SendMessage", f"{TARGET}."])
def test_a_target_that_is_not_ecs_is_refused(start_ecs: StartEcs, target: str) -> None:
    server, _ = start_ecs()
    status, headers, body = _request(server, X_Amz_Target=target)
    assert status == 400
    assert headers["x-amzn-errortype"] == json.loads(body)["__type"] == "UnknownOperationException"
    assert "X-Amz-Target" in json.loads(body)["message"]


@pytest.mark.parametrize("body", ["no json", "[]", '"text"', '{"a": '])
def test_a_body_that_is_not_a_json_object_is_refused(start_ecs: StartEcs, body: str) -> None:
    server, _ = start_ecs()
    status, _, response = _request(server, body=body, X_Amz_Target=f"{TARGET}.RunTask")
    assert (status, json.loads(response)["__type"]) == (400, "SerializationException")


def test_an_answer_is_aws_json_with_a_request_id(start_ecs: StartEcs) -> None:
    server, _ = start_ecs()
    status, headers, body = _request(server, body="", X_Amz_Target=f"{TARGET}.ListTasks")
    assert (status, json.loads(body)) == (200, {"taskArns": []})
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    assert len(headers["x-amzn-RequestId"]) == 32


def test_the_front_page_describes_the_server(start_ecs: StartEcs) -> None:
    server, _ = start_ecs()
    status, headers, body = _request(server, "GET")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    for message in ("a development tool", "127.0.0.1 only", server.endpoint_url, "RunTask"):
        assert message in body


def test_other_pages_and_methods_are_refused(start_ecs: StartEcs) -> None:
    server, _ = start_ecs()
    assert _request(server, "GET", "/other")[0] == 404
    assert _request(server, "DELETE")[0] == 405


@pytest.mark.parametrize("headers", [{"Origin": "https://example.org"}, {"Host": "rebound.example.org"}])
def test_web_pages_cannot_run_commands_here(start_ecs: StartEcs, headers: dict[str, str]) -> None:
    server, _ = start_ecs()
    body = json.dumps(LOCAL)
    status, _, _ = _request(server, body=body, X_Amz_Target=f"{TARGET}.RunTask", **headers)
    assert status == 403
    assert server.stats()["tasks_created"] == 0


def test_the_counters_are_the_same_by_page_and_by_object(start_ecs: StartEcs) -> None:
    server, client = start_ecs()
    wait_for_status(client, run_task(client, "true"))
    assert _code(client.describe_tasks, cluster="nowhere", tasks=["0" * 32])[0] == "ClusterNotFoundException"
    _, _, body = _request(server, "GET", "/_local/stats")
    stats = json.loads(body)
    assert stats == server.stats()
    assert stats["calls"]["RunTask"] == 1
    assert stats["calls"]["DescribeTasks"] >= 2
    assert stats["errors"] == {"ClusterNotFoundException": 1}
    assert stats["tasks"] == {"STOPPED": 1}
    assert stats["tasks_created"] == 1


def test_latency_is_half_before_and_half_after_the_effect(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(3600.0), latency_seconds=0.2)
    began = time.time()
    response = client.run_task(**LOCAL)
    ended = time.time()
    created = response["tasks"][0]["createdAt"].timestamp()
    assert created - began >= 0.09
    assert ended - created >= 0.09


def test_run_and_stop_share_one_rate_limit_and_describe_and_list_another(start_ecs: StartEcs) -> None:
    quota = Quota(rate=0.001, burst=2)
    server, client = start_ecs(TimerRunner(3600.0), run_task_quota=quota, describe_tasks_quota=quota)
    arn = run_task(client, "true")
    client.stop_task(cluster="local", task=arn)
    assert _code(client.run_task, **LOCAL) == ("ThrottlingException", 400)
    client.describe_tasks(cluster="local", tasks=[arn])
    client.list_tasks(cluster="local")
    assert _code(client.list_tasks, cluster="local") == ("ThrottlingException", 400)
    client.describe_clusters()
    assert server.stats()["throttled"] == {"RunTask": 1, "ListTasks": 1}
    assert server.stats()["tasks_created"] == 1


def test_an_injected_throttle_and_server_error_have_no_effect(start_ecs: StartEcs) -> None:
    throttling, client = start_ecs(faults=FaultOptions(throttle=1.0))
    assert _code(client.run_task, **LOCAL) == ("ThrottlingException", 400)
    assert throttling.stats()["faults"] == {"throttle": 1}
    failing, client = start_ecs(faults=FaultOptions(server_error=1.0))
    assert _code(client.run_task, **LOCAL) == ("ServerException", 500)
    assert failing.stats()["faults"] == {"server_error": 1}
    assert throttling.stats()["tasks_created"] == failing.stats()["tasks_created"] == 0


def test_accept_then_drop_starts_the_task_and_closes_the_connection(start_ecs: StartEcs) -> None:
    faults = FaultOptions(accept_then_drop=1.0, operations=("RunTask",))
    server, client = start_ecs(TimerRunner(3600.0), faults=faults)
    with pytest.raises(HTTPClientError):
        client.run_task(**LOCAL, startedBy="me", clientToken="t")
    assert len(client.list_tasks(cluster="local", startedBy="me")["taskArns"]) == 1
    with pytest.raises(HTTPClientError):
        client.run_task(**LOCAL, startedBy="me", clientToken="t")
    assert server.stats()["tasks_created"] == 1
    assert server.stats()["faults"] == {"accept_then_drop": 2}


def test_an_injected_lack_of_capacity_is_a_failure_with_http_200_that_its_token_repeats(
    start_ecs: StartEcs,
) -> None:
    server, client = start_ecs(faults=FaultOptions(capacity=1.0))
    response = client.run_task(**LOCAL, clientToken="t", count=2)
    assert response["tasks"] == []
    assert [failure["reason"] for failure in response["failures"]] == ["RESOURCE:CPU"] * 2
    assert client.run_task(**LOCAL, clientToken="t", count=2)["failures"] == response["failures"]
    assert server.stats()["tasks_created"] == 0


def test_faults_apply_to_their_operations_only(start_ecs: StartEcs) -> None:
    _, client = start_ecs(faults=FaultOptions(server_error=1.0, operations=("StopTask",)))
    arn = run_task(client, "true")
    wait_for_status(client, arn)
    assert _code(client.stop_task, cluster="local", task=arn)[0] == "ServerException"


def test_an_internal_error_is_a_server_exception(start_ecs: StartEcs, caplog: pytest.LogCaptureFixture) -> None:
    def broken_clock() -> float:
        if armed:
            raise RuntimeError("a bug")
        return time.time()

    armed: list[bool] = []
    _, client = start_ecs(TimerRunner(), broken_clock)
    armed.append(True)
    assert _code(client.run_task, **LOCAL, overrides=command_override("true")) == ("ServerException", 500)
    armed.clear()
    assert "a bug" in caplog.text
    assert run_task(client, "true")


def test_a_caller_that_is_killed_while_it_sends_is_no_error(
    start_ecs: StartEcs, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = start_ecs(TimerRunner())
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
            select.select([connection], [], [], 0.05)  # the server reads the header
    for _ in range(3):
        run_task(client, "true")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Amz", b""),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "half a header", "half a body"],
)
def test_a_call_that_does_not_arrive_is_given_up_and_holds_up_no_other(
    start_ecs: StartEcs, sent: bytes, answer: bytes
) -> None:
    server, client = start_ecs(TimerRunner(), receive_timeout_seconds=1.0)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20)) for _ in range(50)]
        for connection in slow:
            connection.sendall(sent)
        began = time.monotonic()
        run_task(client, "true")
        assert time.monotonic() - began < 1.0
        # The end of the connection; an answer comes before it.
        assert {connection.recv(len(answer) or 1) for connection in slow} == {answer}
    time.sleep(1.1)
    run_task(client, "true")  # the client's connection has had a call, and stays
    assert server.stats()["tasks_created"] == 2
