"""`config`: every value, where it came from, and what it means for launching."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ecs_queue.cli import config
from ecs_queue.config.main_keys import MAIN_KEYS
from ecs_queue.config.profile_keys import PROFILE_KEYS
from tests.cli.conftest import Invoke, json_lines


def test_every_key_is_shown_with_its_origin_and_no_password(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "my.cfg"
    file.write_text("[ecs_queue]\nbroker_url = redis://user:hunter2@redis.internal:6379/0\n[aws_ecs_executor.gpu]\n")
    env = {"AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "prod"}
    done = invoke("config", "--config", str(file), "--namespace", "mine", "--json", env=env)
    assert done.exit_code == 0
    lines = json_lines(done.stdout)
    found = {(line["section"], line["key"]): line for line in lines if line["kind"] == "setting"}
    assert {key for section, key in found if section == "ecs_queue"} == set(MAIN_KEYS)
    assert {key for section, key in found if section == "aws_ecs_executor"} == set(PROFILE_KEYS)
    assert found["ecs_queue", "namespace"]["origin"] == "command line"
    assert found["ecs_queue", "broker_url"]["origin"] == f"{file} [ecs_queue]"
    assert found["aws_ecs_executor", "cluster"]["origin"] == "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER"
    assert found["ecs_queue", "concurrency"]["origin"] == "default"
    profiles = {line["queue"]: line for line in lines if line["kind"] == "profile"}
    assert sorted(profiles) == ["default", "gpu"]
    assert not profiles["default"]["launchable"]
    assert "container_name" in profiles["default"]["problem"]
    text = invoke("config", "--config", str(file), env=env).stdout
    assert "hunter2" not in text + done.stdout
    assert "redis://user:***@redis.internal:6379/0" in text
    assert "queue gpu: expected container_name to be set" in text


@pytest.mark.parametrize(("installed", "words"), [(True, "conn_id: honoured"), (False, "conn_id: not honoured")])
def test_it_says_whether_the_connection_id_counts(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, installed: bool, words: str
) -> None:
    monkeypatch.setattr(config, "is_amazon_provider_installed", lambda: installed)
    assert words in invoke("config").stdout
    credentials = json_lines(invoke("config", "--json").stdout)[-1]
    assert (credentials["kind"], credentials["conn_id_honoured"]) == ("credentials", installed)


def test_an_airflow_that_cannot_start_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("airflow.cfg is unreadable")

    monkeypatch.setattr(importlib.util, "find_spec", broken)
    assert not config.is_amazon_provider_installed()


def test_every_mistake_is_named_with_the_place_it_stands_in(invoke: Invoke) -> None:
    env = {"AIRFLOW__ECS_QUEUE__CONCURRENCY": "many", "AIRFLOW__ECS_QUEUE__LEASE": "5"}
    done = invoke("config", env=env)
    assert (done.exit_code, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ecs-queue: [ecs_queue] ") and "AIRFLOW__ECS_QUEUE__" in line for line in lines)
