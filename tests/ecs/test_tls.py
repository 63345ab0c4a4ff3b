"""What both HTTP clients conclude from a failure of TLS: only one of the handshake proves that RunTask was not sent."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.ecs.gateway import BotoEcsGateway
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from tests.ecs.scripted_connections import ScriptedConnections, Unencrypted, http_answer
from tests.ecs.scripted_endpoint import ScriptedEndpoint
from tests.system.secure_redis import CertificateAuthority

STARTED = http_answer(b'{"tasks": [{"taskArn": "arn"}]}')
#: The records have a version that is none, or none at all.
NOT_TLS = {
    "plain text": Unencrypted(http_answer(b"", "400 Bad Request")),
    "a record of another version": Unencrypted(b"\x17\x09\x09\x00\x05hello"),
}


@pytest.fixture(autouse=True)
def _trust(authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.ca))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def run_task(clients: EcsClients, url: str) -> RunTaskResult:
    gateway, now = BotoEcsGateway(clients, time.monotonic), time.monotonic()
    target = Target("eu-central-1", url, None, "jobs")
    kwargs = {"taskDefinition": "job"}
    return gateway.run_task(target, kwargs, client_token="id.nonce.1", started_by="s", deadline=now + 30)


def test_a_trusted_server_gets_the_request(clients: EcsClients, tls: ssl.SSLContext) -> None:
    with ScriptedConnections([STARTED], tls=tls) as server:
        assert run_task(clients, server.url).arn == "arn"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("answer", NOT_TLS.values(), ids=NOT_TLS)
def test_after_an_answer_that_is_not_tls_it_is_not_known_whether_a_task_was_started(
    clients: EcsClients, tls: ssl.SSLContext, version: ssl.TLSVersion, answer: Unencrypted
) -> None:
    """OpenSSL has the same words for it as for a server that never spoke TLS: the request was received here."""
    tls.minimum_version = tls.maximum_version = version
    with ScriptedConnections([answer], tls=tls) as server:
        result = run_task(clients, server.url)
    assert len(server.requests) == 1
    assert (result.kind, result.was_sent) == (RunTaskResultKind.AMBIGUOUS, True)


@pytest.mark.parametrize("answer", [None, STARTED[:-1]], ids=["none", "incomplete"])
def test_after_a_connection_that_ends_without_the_answer_it_is_not_known_either(
    clients: EcsClients, tls: ssl.SSLContext, answer: bytes | None
) -> None:
    with ScriptedConnections([answer], tls=tls) as server:
        result = run_task(clients, server.url)
    assert len(server.requests) == 1
    assert (result.kind, result.was_sent) == (RunTaskResultKind.AMBIGUOUS, True)


def test_a_server_without_tls_gets_no_request(clients: EcsClients) -> None:
    with ScriptedEndpoint() as server:
        result = run_task(clients, server.url.replace("http:", "https:"))
    assert (result.kind, result.error_code, server.requests) == (RunTaskResultKind.NEVER_SENT, "SSLError", [])


def test_a_server_of_an_unknown_authority_gets_no_request(
    clients: EcsClients, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CertificateAuthority(tmp_path / "other").ca))
    with ScriptedConnections([STARTED], tls=tls) as server:
        result = run_task(clients, server.url)
    assert (result.kind, result.error_code, server.requests) == (RunTaskResultKind.NEVER_SENT, "SSLError", [])


def test_a_server_of_another_name_gets_no_request(clients: EcsClients, tls: ssl.SSLContext) -> None:
    with ScriptedConnections([STARTED], tls=tls) as server:
        result = run_task(clients, f"https://localhost:{server.port}")
    assert (result.kind, result.error_code, server.requests) == (RunTaskResultKind.NEVER_SENT, "SSLError", [])


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "not a certificate"])
def test_without_a_file_of_authorities_no_request_is_sent(
    clients: EcsClients, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    bundle = tmp_path / "authorities.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    if content:
        bundle.write_text(content)
    with ScriptedConnections([STARTED], tls=tls) as server:
        result = run_task(clients, server.url)
    assert (result.kind, result.error_code, server.requests) == (RunTaskResultKind.NEVER_SENT, "SSLError", [])
