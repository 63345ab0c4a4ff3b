"""Redaction of configuration values."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.config.redact import holds_secret, redact_config_value, redact_run_task_kwargs, redact_url

SECRETS = st.text(min_size=1, max_size=12).map(lambda text: f"s3cr3t{text}s3cr3t")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("rediss://user:pw@h/0?ssl_cert_reqs=none", "rediss://user:***@h/0?ssl_cert_reqs=none"),
        ("redis://pw@h", "redis://***@h"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=***&db=1"),
        ("redis://h/0?a=1&api_key=pw", "redis://h/0?a=1&api_key=***"),
        ("redis://h/0?pass%77ord=pw", "redis://h/0?pass%77ord=***"),
        ("redis://:p/w@h", "redis://:***@h"),
        ("redis://h?x=a@b", "redis://***"),
        ("user:pw@h", "user:***@h"),
        ("memory://", "memory://"),
        ("", ""),
    ],
)
def test_only_the_secrets_are_redacted(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@settings(deadline=None)
@given(SECRETS, st.sampled_from(["redis", "rediss", "amqp", "https"]), st.sampled_from(["", "user"]))
def test_a_password_never_leaks_encoded_or_not(secret: str, scheme: str, user: str) -> None:
    for written in (secret, quote(secret, safe="")):
        shown = redact_url(f"{scheme}://{user}:{written}@host:6379/0")
        assert "s3cr3t" not in shown
    assert shown == f"{scheme}://{user}:***@host:6379/0"


@settings(deadline=None)
@given(SECRETS, st.sampled_from(["password", "Token", "client_secret", "aws_access_key_id", "sig_key"]))
def test_a_secret_parameter_never_leaks(secret: str, name: str) -> None:
    shown = redact_url(f"redis://host/0?{name}={quote(secret, safe='')}&db=3")
    assert shown == f"redis://host/0?{name}=***&db=3"


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_redacted_and_redacting_again_changes_nothing(text: str) -> None:
    once = redact_url(text)
    assert redact_url(once) == once


@settings(deadline=None)
@given(SECRETS)
def test_values_of_environment_variables_are_redacted_everywhere(secret: str) -> None:
    environment = [{"name": "A", "value": secret}, secret]
    kwargs = {"environment": environment, "overrides": {"containerOverrides": [{"environment": environment}]}}
    redacted = [{"name": "A", "value": "***"}, "***"]
    expected = {"environment": redacted, "overrides": {"containerOverrides": [{"environment": redacted}]}}
    assert redact_run_task_kwargs(kwargs) == expected
    assert json.loads(redact_config_value("run_task_kwargs", json.dumps(kwargs))) == expected


def test_an_environment_of_a_wrong_form_is_redacted_too() -> None:
    assert redact_run_task_kwargs({"Environment": {"A": "pw"}}) == {"Environment": "***"}
    assert redact_config_value("run_task_kwargs", '{"environment": [pw') == "***"


def test_signing_keys_are_redacted_completely() -> None:
    assert redact_config_value("signing_keys", "pw") == "***"
    assert redact_config_value("signing_keys", "") == ""


def test_a_mail_address_is_a_name_and_no_secret() -> None:
    assert redact_config_value("acting_user", "me@example.com") == "me@example.com"
    assert not holds_secret("acting_user", "me@example.com")
    assert redact_config_value("acting_user", "redis://:hunter2@host") == "redis://:***@host"
    assert redact_config_value("broker_url", "me:hunter2@host") == "me:***@host"
