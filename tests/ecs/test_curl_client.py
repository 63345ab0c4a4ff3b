"""What libcurl alone does: connections that are kept, resent requests, TLS, and when botocore sends in its place.

The contract that both HTTP clients keep is in test_gateway.py.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config as BotoConfig

from ecs_queue.config import load_config
from ecs_queue.doctor.checks import run_checks
from ecs_queue.ecs.clients import ClientOptions, CredentialSource, EcsClients, Target
from ecs_queue.ecs.curl_client import CurlHttpClient
from ecs_queue.ecs.gateway import BotoEcsGateway
from ecs_queue.errors import ConfigError
from ecs_queue.local.redis_server import find_free_port
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from tests.ecs.scripted_connections import ScriptedConnections, Step, http_answer
from tests.system.secure_redis import CertificateAuthority

ARN = "arn:aws:ecs:eu-central-1:123456789012:task/jobs/0123456789abcdef0123456789abcdef"
STARTED = http_answer(json.dumps({"tasks": [{"taskArn": ARN}], "failures": []}).encode())
_PARTS = (b'{"tasks', b'": [{"taskArn": "%s"}]}' % ARN.encode(), b"")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
    b"%x\r\n%s%s" % (len(part), part, b"\r\n" if part else b"Trailer: 1\r\n\r\n") for part in _PARTS
)
#: A connection that answers the first request, and breaks after it has read the second one.
BREAKS_LATER: Sequence[Step] = (STARTED, None)

OpenSource = Callable[[str | None], CredentialSource]


def curl_clients(open_source: OpenSource, seconds: float = 5) -> EcsClients:
    return EcsClients(ClientOptions(seconds, seconds, http_client="curl"), open_source=open_source)


@pytest.fixture
def gateway(open_source: OpenSource) -> BotoEcsGateway:
    return BotoEcsGateway(curl_clients(open_source), time.monotonic)


def at(url: str) -> Target:
    return Target("eu-central-1", url, None, "jobs")


def run_task(gateway: BotoEcsGateway, url: str) -> RunTaskResult:
    deadline = time.monotonic() + 30
    return gateway.run_task(
        at(url), {"taskDefinition": "job"}, client_token="id.nonce.1", started_by="s", deadline=deadline
    )


def test_the_calls_of_a_thread_share_a_connection(gateway: BotoEcsGateway) -> None:
    with ScriptedConnections([STARTED] * 3) as server:
        assert [run_task(gateway, server.url).arn for _ in range(3)] == [ARN] * 3
    assert server.accepted == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "503 Service Unavailable"])
def test_an_error_keeps_the_connection(gateway: BotoEcsGateway, status: str) -> None:
    """Workers that are throttled would otherwise make a TLS handshake for each call."""
    refusal = http_answer(b'{"__type": "ThrottlingException"}', status)
    with ScriptedConnections([refusal, STARTED]) as server:
        assert run_task(gateway, server.url).arn is None
        assert run_task(gateway, server.url).arn == ARN
    assert server.accepted == 1


def test_a_connection_that_the_server_announces_to_close_is_not_used_again(gateway: BotoEcsGateway) -> None:
    last = STARTED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with ScriptedConnections([last, STARTED], [STARTED]) as server:
        assert [run_task(gateway, server.url).arn for _ in range(2)] == [ARN] * 2
    assert (server.accepted, len(server.requests)) == (2, 2)


def test_both_http_clients_send_the_same_headers(open_source: OpenSource) -> None:
    with ScriptedConnections([STARTED], [STARTED]) as server:
        for options in (ClientOptions(http_client="botocore"), ClientOptions(http_client="curl")):
            clients = EcsClients(options, open_source=open_source)
            clients.client(at(server.url)).describe_tasks(tasks=[ARN])
    sent = [dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:-2]) for request in server.requests]
    changing = {b"amz-sdk-invocation-id", b"Authorization", b"X-Amz-Date"}
    ours, theirs = ({name: value for name, value in one.items() if name not in changing} for one in sent)
    assert ours == theirs
    assert sent[0].keys() == sent[1].keys()


def test_connections_that_the_server_closes_between_calls_cost_no_call(gateway: BotoEcsGateway) -> None:
    """More of them than libcurl resends one request."""
    with ScriptedConnections(*[[STARTED]] * 8) as server:
        assert [run_task(gateway, server.url).arn for _ in range(8)] == [ARN] * 8
    assert (server.accepted, len(server.requests)) == (8, 8)


def test_a_request_on_a_connection_that_breaks_is_sent_again_as_it_was(gateway: BotoEcsGateway) -> None:
    with ScriptedConnections(BREAKS_LATER, [STARTED]) as server:
        assert [run_task(gateway, server.url).arn for _ in range(2)] == [ARN] * 2
    assert server.requests[1] == server.requests[2]
    assert b'"clientToken":"id.nonce.1"' in server.requests[1].replace(b": ", b":")


@pytest.mark.parametrize("further", [[], [[None]]], ids=["refused", "broken too"])
def test_a_request_that_may_have_arrived_before_the_server_went_away_is_not_reported_as_unsent(
    gateway: BotoEcsGateway, further: list[Sequence[Step]]
) -> None:
    with ScriptedConnections(BREAKS_LATER, *further) as server:
        assert run_task(gateway, server.url).arn == ARN
        result = run_task(gateway, server.url)
    assert (result.kind, result.was_sent, result.error_code) == (
        RunTaskResultKind.AMBIGUOUS,
        True,
        "ConnectionClosedError",
    )


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        STARTED.replace(b"\r\n", b"\r\nNo colon\r\n", 1),
        b"HTTP/1.1 2",
        b"220 mail.example ESMTP\r\n",
    ],
    ids=["none", "short", "short chunk", "no chunk", "only interim", "no header", "half a line", "another protocol"],
)
def test_after_an_unusable_answer_it_is_not_known_whether_a_task_was_started(
    gateway: BotoEcsGateway, answer: bytes | None
) -> None:
    with ScriptedConnections([answer]) as server:
        result = run_task(gateway, server.url)
    assert (result.kind, result.was_sent) == (RunTaskResultKind.AMBIGUOUS, True)
    assert b"id.nonce.1" in server.requests[0]
    assert "Credential" not in result.reason


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED,
        b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n" + STARTED,
        STARTED.replace(b"\r\n", b"\r\nX-Repeated: 1\r\nx-repeated: 2\r\nX-Latin: \xe9\r\n", 1),
        STARTED.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["chunked", "interim", "odd headers", "HTTP/1.0"],
)
def test_every_form_of_answer_is_read(gateway: BotoEcsGateway, answer: bytes) -> None:
    with ScriptedConnections([answer]) as server:
        assert run_task(gateway, server.url).arn == ARN


def test_the_headers_are_those_of_the_last_answer(open_source: OpenSource) -> None:
    answer = b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n" + STARTED.replace(
        b"\r\n", b"\r\nx-amzn-RequestId: r\r\n", 1
    )
    with ScriptedConnections([answer]) as server:
        found = curl_clients(open_source).client(at(server.url)).describe_tasks(tasks=[ARN])
    assert found["ResponseMetadata"]["RequestId"] == "r"
    assert "x-early" not in found["ResponseMetadata"]["HTTPHeaders"]


def test_a_large_answer_is_read_whole_and_followed_by_a_small_one(gateway: BotoEcsGateway) -> None:
    arns = [f"{ARN}{number}" for number in range(100)]
    tasks = [{"taskArn": arn, "reason": "é" * 6000} for arn in arns]
    large = json.dumps({"tasks": tasks, "failures": []}, ensure_ascii=False).encode()
    assert len(large) > 1_000_000
    with ScriptedConnections([http_answer(large), STARTED]) as server:
        found = gateway.describe_tasks(at(server.url), arns)
        assert [task["taskArn"] for task in found.tasks] == arns
        assert [task["taskArn"] for task in gateway.describe_tasks(at(server.url), [ARN]).tasks] == [ARN]


def test_threads_have_connections_of_their_own_and_their_own_answers(gateway: BotoEcsGateway) -> None:
    number, calls = 8, 10
    barrier = threading.Barrier(number)

    def repeat(request: bytes) -> bytes:
        (arn,) = json.loads(request.partition(b"\r\n\r\n")[2])["tasks"]
        return http_answer(json.dumps({"tasks": [{"taskArn": arn}], "failures": []}).encode())

    with ScriptedConnections(*[[repeat] * calls] * number) as server, ThreadPoolExecutor(number) as pool:

        def describe(thread: int) -> list[str]:
            barrier.wait()
            asked = [f"{thread}/{call}" for call in range(calls)]
            found = [gateway.describe_tasks(at(server.url), [arn]).tasks[0]["taskArn"] for arn in asked]
            assert found == asked
            return found

        assert sum(map(len, pool.map(describe, range(number)))) == number * calls
    assert server.accepted == number


def test_a_thread_calls_two_endpoints_in_turn(gateway: BotoEcsGateway) -> None:
    with ScriptedConnections([STARTED] * 2) as one, ScriptedConnections([STARTED] * 2) as other:
        for url in (one.url, other.url) * 2:
            assert run_task(gateway, url).arn == ARN
    assert (one.accepted, other.accepted) == (1, 1)


def test_an_unknown_host_is_never_sent(gateway: BotoEcsGateway) -> None:
    result = run_task(gateway, "http://ecs.invalid")
    assert (result.kind, result.error_code) == (RunTaskResultKind.NEVER_SENT, "EndpointConnectionError")


def test_a_server_that_does_not_begin_tls_in_time_is_never_sent(open_source: OpenSource) -> None:
    gateway = BotoEcsGateway(curl_clients(open_source, seconds=0.2), time.monotonic)
    with ScriptedConnections([], silent=True) as server:
        result = run_task(gateway, server.url)
    assert (result.kind, result.error_code) == (RunTaskResultKind.NEVER_SENT, "ConnectTimeoutError")


@pytest.mark.parametrize("source", ["verify", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "config", "profile"])
def test_certificates_of_our_own_authority_are_accepted_as_botocore_is_told_of_it(
    open_source: OpenSource,
    authority: CertificateAuthority,
    tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str,
) -> None:
    opened = open_source
    if source == "verify":

        def opened(conn_id: str | None) -> CredentialSource:
            return replace(open_source(conn_id), verify=str(authority.ca))

    elif source == "config":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {authority.ca}\n")
    elif source == "profile":
        (tmp_path / "config").write_text(f"[profile etl]\nca_bundle = {authority.ca}\n")
        monkeypatch.setenv("AWS_PROFILE", "etl")
    else:
        monkeypatch.setenv(source, str(authority.ca))
    clients = curl_clients(opened)
    with ScriptedConnections([STARTED] * 2, tls=tls) as server:
        gateway = BotoEcsGateway(clients, time.monotonic)
        assert [run_task(gateway, server.url).arn for _ in range(2)] == [ARN] * 2
    assert server.accepted == 1


def _use_authority(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def test_a_server_with_a_certificate_of_an_unknown_authority_gets_no_request(
    gateway: BotoEcsGateway, tls: ssl.SSLContext
) -> None:
    with ScriptedConnections([STARTED], tls=tls) as server:
        result = run_task(gateway, server.url)
    assert (result.kind, result.error_code, server.requests) == (RunTaskResultKind.NEVER_SENT, "SSLError", [])


def test_a_certificate_for_another_host_gets_no_request(
    gateway: BotoEcsGateway, authority: CertificateAuthority, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_authority(monkeypatch, authority.ca)
    with ScriptedConnections([STARTED], tls=tls) as server:
        result = run_task(gateway, f"https://localhost:{server.port}")
    assert (result.kind, result.error_code, server.requests) == (RunTaskResultKind.NEVER_SENT, "SSLError", [])


def test_a_server_without_tls_gets_no_request(
    gateway: BotoEcsGateway, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_authority(monkeypatch, authority.ca)
    with ScriptedConnections([], []) as server:
        result = run_task(gateway, server.url.replace("http:", "https:"))
    assert result.kind is RunTaskResultKind.NEVER_SENT
    assert server.requests == []


def test_a_file_of_authorities_that_is_missing_is_never_sent(
    gateway: BotoEcsGateway, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _use_authority(monkeypatch, tmp_path / "missing.pem")
    with ScriptedConnections([STARTED], tls=tls) as server:
        result = run_task(gateway, server.url)
    assert (result.kind, result.error_code) == (RunTaskResultKind.NEVER_SENT, "SSLError")


def test_a_renewed_file_of_authorities_is_read_without_a_restart(
    gateway: BotoEcsGateway,
    authority: CertificateAuthority,
    tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(CertificateAuthority(tmp_path / "former").ca.read_bytes())
    _use_authority(monkeypatch, bundle)
    with ScriptedConnections([STARTED], [STARTED], tls=tls) as server:
        assert run_task(gateway, server.url).kind is RunTaskResultKind.NEVER_SENT
        bundle.write_bytes(authority.ca.read_bytes())
        assert run_task(gateway, server.url).arn == ARN


def test_a_connection_that_one_client_trusts_is_not_used_for_one_that_does_not(
    open_source: OpenSource, authority: CertificateAuthority, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path / "other")
    http, url = CurlHttpClient(), ""
    with ScriptedConnections([STARTED] * 2, [STARTED], [STARTED], tls=tls) as server:
        url = server.url
        trusting, other_client = (build_client(open_source, url, verify=str(ca)) for ca in (authority.ca, other.ca))
        assert http.attach(trusting, str(authority.ca), None)
        assert http.attach(other_client, str(other.ca), None)
        assert trusting.describe_tasks(tasks=[ARN])["tasks"]
        with pytest.raises(Exception, match="TLS handshake failed"):
            other_client.describe_tasks(tasks=[ARN])
        assert trusting.describe_tasks(tasks=[ARN])["tasks"]


def build_client(open_source: OpenSource, url: str, verify: bool | str | None = None, **config: Any) -> Any:
    session = open_source(None).session
    boto_config = BotoConfig(retries={"total_max_attempts": 1}, **config)
    return session.client("ecs", region_name="r", endpoint_url=url, verify=verify, config=boto_config)


def test_through_a_proxy_botocore_sends(gateway: BotoEcsGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedConnections([STARTED]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert run_task(gateway, "http://ecs.invalid").arn == ARN
    assert proxy.requests[0].startswith(b"POST http://ecs.invalid/ HTTP/1.1")


def test_a_host_that_needs_no_proxy_is_called_with_libcurl_and_without_one(
    open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libcurl reads variables of its own."""
    for name in ("HTTP_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with ScriptedConnections([STARTED]) as server:
        client = build_client(open_source, server.url)
        assert CurlHttpClient().attach(client, None, None)
        monkeypatch.delenv("NO_PROXY")
        assert client.describe_tasks(tasks=[ARN])["tasks"]


@pytest.mark.parametrize(
    ("url", "verify", "config"),
    [
        ("https://ecs.invalid", False, {}),
        ("https://ecs.invalid", None, {"proxies": {"https": "http://proxy.invalid"}}),
        ("https://ecs.invalid", None, {"proxies_config": {"proxy_use_forwarding_for_https": True}}),
        ("https://ecs.invalid", None, {"client_cert": "client.pem"}),
        ("https://ECS.invalid", None, {}),
        ("https://127.1", None, {}),
        ("https://2130706433", None, {}),
        ("https://0x7f.1.", None, {}),
        ("https://[0:0:0:0:0:0:0:1]", None, {}),
        ("https://user@ecs.invalid", None, {}),
        ("ftp://ecs.invalid", None, {}),
    ],
)
def test_what_libcurl_would_have_to_be_told_of_is_left_to_botocore(
    open_source: OpenSource,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    verify: bool | None,
    config: dict[str, Any],
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    client = build_client(open_source, url, verify, **config)
    assert not CurlHttpClient().attach(client, verify, None)
    assert CurlHttpClient().attach(build_client(open_source, "https://ecs.invalid"), None, None)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost.", "127.0.0.1", "[::1]", "vpce-1a.ecs.eu-west-1.vpce.amazonaws.com"]
)
def test_a_host_that_libcurl_sends_as_it_is_signed_is_sent_by_libcurl(
    open_source: OpenSource, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    assert CurlHttpClient().attach(build_client(open_source, f"http://{host}:8080"), None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"body": BytesIO(b"{}")},
        {"body": "{}"},
        {"body": None},
        {"headers": {"X-Trace": "1\r\nX-Other: 2"}},
        {"headers": {"X-Trace": b"1\n2"}},
        {"headers": {"X-Trace": "1\0"}},
        {"headers": {"X-Empty": ""}},
        {"headers": {"X-Trace": "漢"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
    ],
)
def test_a_request_that_libcurl_cannot_send_as_it_is_is_left_to_botocore(
    open_source: OpenSource, change: dict[str, Any]
) -> None:
    with ScriptedConnections([STARTED]) as server:
        client = build_client(open_source, server.url)
        CurlHttpClient().attach(client, None, None)
        plain = {"method": "POST", "url": server.url, "headers": {}, "body": b"{}"}

        def answers(**changed: Any) -> list[Any]:
            request = SimpleNamespace(**{**plain, **changed})
            responses = client.meta.events.emit("before-send.ecs.RunTask", request=request)
            return [answer for _, answer in responses if answer is not None]

        assert answers(**change) == []
        assert [answer.status_code for answer in answers()] == [200]


def test_without_pycurl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycurl", None)
    monkeypatch.delitem(sys.modules, "ecs_queue.ecs.curl_client", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'ecs-queue\[curl\]'"):
        EcsClients(ClientOptions(http_client="curl"))


@pytest.mark.parametrize("version", ["8.7.0", "8.7.1"])
def test_a_libcurl_that_does_not_count_what_it_sends_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Else a call that ECS has received would count as never sent (curl/curl#13269)."""
    number = int("".join(f"{int(part):02x}" for part in version.split(".")), 16)
    monkeypatch.setattr("pycurl.version_info", lambda: (11, version, number))
    with pytest.raises(ConfigError, match=f"found {version}"):
        EcsClients(ClientOptions(http_client="curl"))


@pytest.mark.parametrize("number", [0x080600, 0x080800])
def test_the_versions_before_and_after_it_are_used(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("pycurl.version_info", lambda: (11, "", number))
    assert EcsClients(ClientOptions(http_client="curl"))


def test_doctor_calls_ecs_with_the_configured_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycurl", None)
    monkeypatch.delitem(sys.modules, "ecs_queue.ecs.curl_client", raising=False)
    config = load_config(
        environ={}, overrides={"broker_url": "memory://", "ledger_url": "memory://", "http_client": "curl"}
    )
    with pytest.raises(ConfigError, match="http_client"):
        list(run_checks(config, (), None, 1.0))


@pytest.mark.parametrize(
    ("proxy", "found"), [("", "libcurl sends"), ("http://127.0.0.1:9", "http_client = curl, but botocore sends")]
)
def test_doctor_says_which_client_sends_the_calls(monkeypatch: pytest.MonkeyPatch, proxy: str, found: str) -> None:
    """Of a cluster that cannot be reached, too."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    overrides = {"broker_url": "memory://", "ledger_url": "memory://", "http_client": "curl"}
    profile = {"CLUSTER": "jobs", "REGION_NAME": "r", "TASK_DEFINITION": "job", "CONTAINER_NAME": "main"}
    profile["SUBNETS"] = "subnet-1"
    profile["ENDPOINT_URL"] = f"http://127.0.0.1:{find_free_port()}"
    environ = {f"AIRFLOW__AWS_ECS_EXECUTOR__{key}": value for key, value in profile.items()}
    findings = list(run_checks(load_config(environ=environ, overrides=overrides), (), None, 1.0))
    (text,) = [finding.text for finding in findings if finding.check == "aws.http_client"]
    assert text.startswith(found)
