"""Targets, clients and where their credentials come from."""

from __future__ import annotations

import json
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.ecs.clients import ClientOptions, CredentialSource, EcsClients, Target, open_credential_source
from ecs_queue.errors import ConfigError, PermanentError
from tests.ecs.scripted_endpoint import ScriptedEndpoint, ScriptedReply, ok_reply


@dataclass(frozen=True)
class FakeProfile:
    region_name: str | None = None
    endpoint_url: str | None = None
    role_arn: str | None = None
    cluster: str | None = "jobs"
    conn_id: str | None = None


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="@"), max_size=12)
TARGETS = st.builds(Target, TEXT, st.none(), st.none() | TEXT, TEXT, st.none() | TEXT)


@given(target=TARGETS)
def test_a_target_is_the_same_after_the_ledger(target: Target) -> None:
    assert Target.decode(target.encode()) == target


def test_the_encoding_of_a_target_does_not_change() -> None:
    """Frozen in the records of running systems."""
    small = Target("eu-central-1", None, None, "jobs")
    assert small.encode() == '{"cluster":"jobs","region":"eu-central-1"}'
    full = Target("eu-central-1", "http://h:1", "arn:aws:iam::1:role/r", "jobs", "aws_default")
    assert full.encode() == (
        '{"cluster":"jobs","conn_id":"aws_default","endpoint_url":"http://h:1","region":"eu-central-1",'
        '"role_arn":"arn:aws:iam::1:role/r"}'
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"region":"r"}', '{"region":"r","cluster":"c","new":1}', "1"])
def test_an_unreadable_target_is_a_permanent_error(text: str) -> None:
    with pytest.raises(PermanentError, match="newer version"):
        Target.decode(text)


def test_an_endpoint_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Target("r", "http://user:hunter2@h", None, "c")
    assert "hunter2" not in str(caught.value)


def test_the_profiles_region_comes_first(clients: EcsClients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert clients.target_for(FakeProfile(region_name="eu-west-1")).region == "eu-west-1"


@pytest.mark.parametrize("variable", ["AWS_DEFAULT_REGION", "AWS_REGION"])
def test_the_environments_region_serves_a_profile_without_one(
    clients: EcsClients, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "us-west-2")
    assert clients.target_for(FakeProfile()) == Target("us-west-2", None, None, "jobs")


def test_the_config_files_region_serves_too(clients: EcsClients, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[default]\nregion = ap-south-1\n")
    assert clients.target_for(FakeProfile()).region == "ap-south-1"


def test_without_any_region_the_error_says_how_to_set_one(clients: EcsClients) -> None:
    with pytest.raises(ConfigError, match=r"region_name in \[aws_ecs_executor\]"):
        clients.target_for(FakeProfile())


@pytest.mark.parametrize("cluster", [None, ""])
def test_without_a_cluster_the_error_names_it(clients: EcsClients, cluster: str | None) -> None:
    with pytest.raises(ConfigError, match="cluster"):
        clients.target_for(FakeProfile(region_name="r", cluster=cluster))


def test_a_target_has_what_the_profile_says(clients: EcsClients) -> None:
    profile = FakeProfile("eu-west-1", "http://h:1", "arn:aws:iam::1:role/r", "jobs", "")
    assert clients.target_for(profile) == Target("eu-west-1", "http://h:1", "arn:aws:iam::1:role/r", "jobs")


def test_a_client_makes_one_attempt_with_our_time_outs_and_name(endpoint: ScriptedEndpoint) -> None:
    clients = EcsClients(ClientOptions(1.5, 2.5, 7))
    client = clients.client(Target("eu-central-1", endpoint.url, None, "jobs"))
    config = client.meta.config
    assert config.retries == {"total_max_attempts": 1, "mode": "standard"}
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (1.5, 2.5, 7)
    assert config.tcp_keepalive
    endpoint.enqueue(ok_reply(tasks=[]))
    client.describe_tasks(tasks=["x"])
    assert "ecs-queue/" in endpoint.requests[0].headers["User-Agent"]


def test_threads_share_one_client_a_target(clients: EcsClients, target: Target) -> None:
    barrier = threading.Barrier(4)

    def fetch(_number: int) -> Any:
        barrier.wait()
        return clients.client(target)

    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(fetch, range(4)))
    assert len(set(map(id, fetched))) == 1
    assert clients.client(Target("eu-central-1", target.endpoint_url, None, "other")) is not fetched[0]


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECS"])
def test_boto3s_endpoint_variables_keep_working(
    clients: EcsClients, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, endpoint.url)
    assert clients.client(Target("eu-central-1", None, None, "jobs")).meta.endpoint_url == endpoint.url


def test_credentials_that_appear_later_are_found(clients: EcsClients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    target = Target("eu-central-1", None, None, "jobs")
    with pytest.raises(NoCredentialsError):
        clients.client(target)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "late")
    assert clients.client(target) is clients.client(target)


def test_a_forgotten_client_reads_its_credentials_afresh(
    clients: EcsClients, target: Target, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = clients.client(target)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
    clients.invalidate(target, old)
    new = clients.client(target)
    clients.invalidate(target, old)
    assert clients.client(target) is new
    endpoint.enqueue(ok_reply(tasks=[]))
    new.describe_tasks(tasks=["x"])
    assert "Credential=renewed/" in endpoint.requests[0].headers["Authorization"]


@pytest.mark.parametrize("url", ["not a url", "http://"])
def test_an_unusable_endpoint_is_a_config_error(clients: EcsClients, url: str) -> None:
    with pytest.raises(ConfigError, match="No ECS client"):
        clients.client(Target("eu-central-1", url, None, "jobs"))


ASSUMED = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/r/ecs-queue</Arn><AssumedRoleId>A:b</AssumedRoleId>
</AssumedRoleUser><Credentials><AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def test_a_role_is_assumed_when_first_used_and_only_once(
    clients: EcsClients, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)
    role = "arn:aws:iam::123456789012:role/r"
    client = clients.client(Target("eu-central-1", endpoint.url, role, "jobs"))
    assert endpoint.requests == []
    endpoint.enqueue(ScriptedReply(ASSUMED % b"2999-01-01T00:00:00Z"), ok_reply(tasks=[]), ok_reply(tasks=[]))
    client.describe_tasks(tasks=["x"])
    client.describe_tasks(tasks=["x"])
    sts, first, second = endpoint.requests
    assert "RoleSessionName=ecs-queue" in sts.body["form"]
    assert "Credential=testing/" in sts.headers["Authorization"]
    assert all("Credential=ASSUMED/" in call.headers["Authorization"] for call in (first, second))


def test_credentials_about_to_expire_are_renewed(
    clients: EcsClients, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)
    client = clients.client(Target("eu-central-1", endpoint.url, "arn:aws:iam::123456789012:role/r", "jobs"))
    endpoint.enqueue(ScriptedReply(ASSUMED % b"2999-01-01T00:00:00Z"), ok_reply(tasks=[]))
    client.describe_tasks(tasks=["x"])
    credentials = client._request_signer._credentials
    credentials._expiry_time = credentials._time_fetcher()
    endpoint.enqueue(
        ScriptedReply(ASSUMED.replace(b"ASSUMED", b"RENEWED") % b"2999-01-01T00:00:00Z"), ok_reply(tasks=[])
    )
    client.describe_tasks(tasks=["x"])
    assert "Credential=RENEWED/" in endpoint.requests[-1].headers["Authorization"]


def test_a_role_without_credentials_to_assume_it_says_so(
    clients: EcsClients, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    client = clients.client(Target(target.region, target.endpoint_url, "arn:aws:iam::123456789012:role/r", "c"))
    with pytest.raises(NoCredentialsError):
        client.describe_tasks(tasks=["x"])


class FakeAwsHook:
    """Airflow's AwsGenericHook as far as it is used."""

    verify = False

    def __init__(self, aws_conn_id: str, client_type: str) -> None:
        self.aws_conn_id = aws_conn_id
        self.conn_config = SimpleNamespace(get_service_endpoint_url=lambda service: f"http://{service}:1")

    def get_session(self) -> boto3.Session:
        return boto3.Session("conn-key", "conn-secret", region_name="sa-east-1")


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    name = ""
    for part in ("airflow", "providers", "amazon", "aws", "hooks", "base_aws"):
        name = f"{name}.{part}" if name else part
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules[name])["AwsGenericHook"] = FakeAwsHook


@pytest.mark.usefixtures("airflow")
def test_an_airflow_connection_is_honoured_where_airflow_is_installed() -> None:
    clients = EcsClients()
    target = clients.target_for(FakeProfile(conn_id="aws_default"))
    assert target == Target("sa-east-1", "http://ecs:1", None, "jobs", "aws_default")
    client = clients.client(target)
    assert client.meta.endpoint_url == "http://ecs:1"
    assert client._request_signer._credentials.access_key == "conn-key"
    assert client._endpoint.http_session._verify is False


def test_the_import_of_airflow_leaves_logging_as_the_program_set_it_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "airflow"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "import logging\nlogging.getLogger().handlers[:] = [logging.NullHandler()]\nlogging.getLogger().setLevel(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler()])
    before = root.handlers[0], root.level
    open_credential_source("aws_default")
    assert sys.modules.pop("airflow").__file__ == str(package / "__init__.py")
    assert (root.handlers[0], root.level) == before


def test_without_airflow_a_connection_means_boto3s_own_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow", None)
    source = open_credential_source("aws_default")
    assert source.session.get_credentials().access_key == "testing"
    assert (source.endpoint_url, source.verify) == (None, None)


def test_a_connection_that_cannot_be_opened_is_a_config_error() -> None:
    def broken(_conn_id: str | None) -> CredentialSource:
        raise OSError("the metadata database is down")

    with pytest.raises(ConfigError, match=r"aws_default cannot be opened.*database is down"):
        EcsClients(open_source=broken).target_for(FakeProfile(region_name="r", conn_id="aws_default"))


def test_an_encoded_target_is_json_any_language_reads() -> None:
    assert json.loads(Target("r", None, None, "Ünï").encode()) == {"region": "r", "cluster": "Ünï"}
