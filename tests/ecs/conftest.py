"""A closed AWS environment, and an endpoint that replies as a test scripts it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import botocore.session
import pytest

from ecs_queue.ecs.clients import ClientOptions, CredentialSource, EcsClients, HttpClient, Target
from tests.ecs.scripted_endpoint import ScriptedEndpoint
from tests.system.secure_redis import CertificateAuthority


@pytest.fixture(autouse=True)
def _closed_aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Static credentials, no Region, nothing of the machine's own AWS settings, no instance metadata."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def open_source() -> Callable[[str | None], CredentialSource]:
    """boto3's own chain, read again for each session; only the service models are loaded once."""
    loader = botocore.session.Session().get_component("data_loader")

    def fresh(_conn_id: str | None) -> CredentialSource:
        session = botocore.session.Session()
        session.register_component("data_loader", loader)
        return CredentialSource(boto3.Session(botocore_session=session))

    return fresh


@pytest.fixture(params=["botocore", "curl"])
def http_client(request: pytest.FixtureRequest) -> HttpClient:
    """Each HTTP client: they keep the same contract."""
    name: HttpClient = request.param
    return name


@pytest.fixture
def clients(open_source: Callable[[str | None], CredentialSource], http_client: HttpClient) -> EcsClients:
    options = ClientOptions(connect_timeout=2, read_timeout=2, max_pool_connections=4, http_client=http_client)
    return EcsClients(options, open_source=open_source)


@pytest.fixture
def target(endpoint: ScriptedEndpoint) -> Target:
    return Target("eu-central-1", endpoint.url, None, "jobs")


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "tls")


@pytest.fixture
def tls(authority: CertificateAuthority) -> ssl.SSLContext:
    """For a server on 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("ecs"))
    return context
