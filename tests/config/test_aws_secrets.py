"""Values that stand in AWS, on moto's Systems Manager and Secrets Manager."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from ecs_queue.config import Config, load_config
from ecs_queue.config.aws_secrets import AwsSecrets, is_reference
from ecs_queue.errors import ConfigError

URL = "rediss://worker:hunter2@redis.internal:6379/0"
KEY = "2026-11:" + "k" * 40
REGION = "eu-west-1"

pytestmark = pytest.mark.moto


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The ARNs of the values."""
    from moto import mock_aws  # the tests at the lowest versions do without it

    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        ssm, secrets = boto3.client("ssm"), boto3.client("secretsmanager")
        ssm.put_parameter(Name="/ecs-queue/broker_url", Value=f"{URL}\n", Type="SecureString")
        secret = secrets.create_secret(Name="ecs-queue/keys", SecretString=json.dumps({"signing": KEY, "number": 5}))
        secrets.create_secret(Name="ecs-queue/binary", SecretBinary=b"hunter2")
        elsewhere = boto3.client("ssm", region_name="us-east-2")
        elsewhere.put_parameter(Name="/there", Value=URL, Type="SecureString")
        yield {"keys": secret["ARN"], "there": "arn:aws:ssm:us-east-2:123456789012:parameter/there"}


def _load(**keys: str) -> Config:
    return load_config(environ={f"AIRFLOW__ECS_QUEUE__{name.upper()}": value for name, value in keys.items()})


def test_urls_and_keys_may_stand_in_aws() -> None:
    config = _load(broker_url="ssm:/ecs-queue/broker_url", signing_keys="secretsmanager:ecs-queue/keys#signing")
    assert config.broker_url == URL
    assert config.signing_keys is not None
    assert config.signing_keys[0].id == "2026-11"
    shown = {value.key: (value.value, value.origin) for value in config.effective_values}
    assert shown["broker_url"] == (
        "rediss://worker:***@redis.internal:6379/0",
        "AIRFLOW__ECS_QUEUE__BROKER_URL (ssm:/ecs-queue/broker_url)",
    )
    assert shown["signing_keys"][0] == "***"


def test_the_region_may_be_the_one_that_ecs_sets_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", REGION)
    assert _load(ledger_url="ssm:/ecs-queue/broker_url").ledger_url == URL


def test_an_arn_names_its_region(aws: dict[str, str]) -> None:
    assert _load(ledger_url=f"ssm:{aws['there']}").ledger_url == URL
    assert _load(signing_keys=f"secretsmanager:{aws['keys']}#signing").signing_keys is not None


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("ssm:/ecs-queue/none", "ParameterNotFound"),
        ("secretsmanager:none", "ResourceNotFoundException"),
        ("secretsmanager:ecs-queue/binary", "to hold text, found none"),
        ("ssm:/ecs-queue/broker_url#url", "to hold a JSON object, found other text"),
        ("secretsmanager:ecs-queue/keys#other", "with the text member 'other', found none"),
        ("secretsmanager:ecs-queue/keys#number", "with the text member 'number', found none"),
    ],
)
def test_one_that_cannot_be_read_is_an_error_that_names_key_and_reference_and_no_value(
    reference: str, found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(broker_url=reference)
    text = str(caught.value)
    assert text.startswith(f"[ecs_queue] broker_url: expected {reference} to ")
    assert found in text
    assert text.endswith("(from AIRFLOW__ECS_QUEUE__BROKER_URL)")
    assert "hunter2" not in text
    assert KEY not in text


def test_without_a_region_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match="NoRegionError; check the name, the Region"):
        _load(broker_url="ssm:/ecs-queue/broker_url")


def test_a_value_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = AwsSecrets()
    first = secrets.read("secretsmanager:ecs-queue/keys#signing")
    monkeypatch.setattr(secrets, "_client", lambda *_: pytest.fail("it was read again"))
    assert secrets.read("secretsmanager:ecs-queue/keys#signing") == first == KEY


def test_each_call_has_a_time_limit() -> None:
    secrets = AwsSecrets()
    secrets.read("ssm:/ecs-queue/broker_url")
    (client,) = secrets._clients.values()
    config: Any = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (5, 5, 2)


@pytest.mark.parametrize("text", [KEY, f"ssm:{'k' * 40}", URL, "ssm:", "secretsmanager:", "", "redis://ssm:/x"])
def test_other_values_are_no_references(text: str) -> None:
    assert not is_reference(text)
