"""Keys that sign and encrypt are parsed strictly and never shown; and allowed overrides."""

from __future__ import annotations

import base64

import pytest

from ecs_queue.config import Config, load_config
from ecs_queue.errors import ConfigError
from ecs_queue.messages.keyring import SigningKey
from ecs_queue.runtask.overrides import SAFE_OVERRIDES

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"
FERNET = base64.urlsafe_b64encode(b"hunter2-hunter2-hunter2-hunter2!").decode()


def load(**keys: str) -> Config:
    return load_config(environ={}, overrides=keys)


def problem(**keys: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**keys)
    return str(caught.value)


def test_a_key_is_the_bytes_of_the_text_after_its_name() -> None:
    config = load(signing_keys=f"2026:{SECRET} , old:{'ä:' * 16}")

    assert config.signing_keys == (SigningKey("2026", SECRET.encode()), SigningKey("old", ("ä:" * 16).encode()))


@pytest.mark.parametrize(
    "value",
    [SECRET, f":{SECRET}", f"k 1:{SECRET}", "k1:short-hunter2", f"k1:{SECRET},", ",", f"k1:{SECRET[:20]} {SECRET}"],
)
def test_a_bad_signing_key_is_named_by_its_position_and_not_shown(value: str) -> None:
    message = problem(signing_keys=value)

    assert "signing_keys: expected ID:SECRET" in message
    assert "openssl rand -hex 32" in message
    assert "hunter2" not in message


def test_two_signing_keys_of_one_name_are_refused() -> None:
    message = problem(signing_keys=f"k1:{SECRET},k1:{SECRET}x")

    assert "'k1' twice" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("value", [SECRET, FERNET[:-4], f"{FERNET},", "k1:" + FERNET, FERNET + "AAAA"])
def test_a_bad_encryption_key_is_named_by_its_position_and_not_shown(value: str) -> None:
    message = problem(encryption_keys=value)

    assert "encryption_keys: expected Fernet keys" in message
    assert value[:12] not in message


def test_no_key_is_shown_anywhere() -> None:
    config = load(signing_keys=f"k1:{SECRET}", encryption_keys=FERNET)
    shown = f"{config!r} {config} {config.effective_values} {config.profile('x')!r} {vars(config)!r}".replace(
        repr(config.encryption_keys), ""
    )

    assert "hunter2" not in shown
    assert FERNET not in shown
    values = {setting.key: setting.value for setting in config.effective_values}
    assert (values["signing_keys"], values["encryption_keys"]) == ("***", "***")


def test_by_default_a_request_overrides_what_is_safe() -> None:
    assert load().profile("any").allowed_overrides == load().allowed_overrides == SAFE_OVERRIDES


def test_allowed_overrides_are_set_for_all_queues_or_for_one() -> None:
    environ = {
        "AIRFLOW__ECS_QUEUE__ALLOWED_OVERRIDES": "cpu",
        "AIRFLOW__AWS_ECS_EXECUTOR_GPU__ALLOWED_OVERRIDES": "safe, task_definition",
        "AIRFLOW__AWS_ECS_EXECUTOR_STRICT__ALLOWED_OVERRIDES": "none",
        "AIRFLOW__AWS_ECS_EXECUTOR_SMALL__LAUNCH_TYPE": "FARGATE",
        "AIRFLOW__AWS_ECS_EXECUTOR_EMPTY__ALLOWED_OVERRIDES": "",
    }
    config = load_config(environ=environ)

    found = {queue: config.profile(queue).allowed_overrides for queue in ("default", "gpu", "strict", "small", "empty")}
    assert found == {
        "default": ("cpu",),
        "gpu": (*SAFE_OVERRIDES, "taskDefinition"),
        "strict": (),
        "small": ("cpu",),
        "empty": ("cpu",),
    }


def test_the_base_profile_wins_over_the_main_section() -> None:
    environ = {
        "AIRFLOW__ECS_QUEUE__ALLOWED_OVERRIDES": "cpu",
        "AIRFLOW__AWS_ECS_EXECUTOR__ALLOWED_OVERRIDES": "memory",
        "AIRFLOW__AWS_ECS_EXECUTOR_GPU__LAUNCH_TYPE": "EC2",
    }
    assert load_config(environ=environ).profile("gpu").allowed_overrides == ("memory",)


def test_an_unknown_override_is_a_problem_with_its_section_and_key() -> None:
    message = problem(allowed_overrides="cpu, taskDefiniton")

    assert "[ecs_queue] allowed_overrides: expected names of overrides" in message
    assert "did you mean taskDefinition?" in message
