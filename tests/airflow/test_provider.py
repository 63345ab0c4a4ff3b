"""The package's description for Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest

from ecs_queue.airflow import provider
from ecs_queue.airflow.provider import get_provider_info
from ecs_queue.config.main_keys import MAIN_KEYS
from ecs_queue.config.profile_keys import PROFILE_KEYS


@pytest.fixture
def no_amazon_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the Amazon provider, which is installed beside Airflow 3.1."""
    monkeypatch.setattr(
        provider,
        "entry_points",
        lambda group: [one for one in entry_points(group=group) if "providers.amazon" not in one.module],
    )


@pytest.mark.usefixtures("no_amazon_provider")
def test_every_key_of_the_configuration_is_described_with_its_default() -> None:
    config = get_provider_info()["config"]
    for section, keys in (("ecs_queue", MAIN_KEYS), ("aws_ecs_executor", PROFILE_KEYS)):
        options = config[section]["options"]
        assert list(options) == list(keys)
        for name, key in keys.items():
            assert options[name]["default"] is None  # else a generated airflow.cfg would set it
            assert not key.default or options[name]["description"].endswith(f"Default: {key.default}.")
            assert options[name]["description"]


def test_keys_and_urls_that_may_hold_a_password_are_marked_as_sensitive() -> None:
    """Airflow hides them, and reads them from its secrets backends and from commands too."""
    options = get_provider_info()["config"]["ecs_queue"]["options"]
    sensitive = [name for name, option in options.items() if option.get("sensitive")]
    assert sensitive == ["broker_url", "ledger_url", "signing_keys", "encryption_keys"]


def test_it_is_plain_data() -> None:
    assert json.loads(json.dumps(get_provider_info()))["executors"] == ["ecs_queue.airflow.executor.EcsQueueExecutor"]


def test_it_has_the_shape_that_airflow_demands() -> None:
    airflow = find_spec("airflow")
    if airflow is None or airflow.submodule_search_locations is None:
        pytest.skip("Airflow, whose schema this is, is not installed here; `make airflow-test` runs it")
    schema = Path(airflow.submodule_search_locations[0]) / "provider_info.schema.json"
    jsonschema.validate(get_provider_info(), json.loads(schema.read_text()))


def install_provider(directory: Path, name: str, body: str) -> Path:
    """Write a distribution with the entry point of an Airflow provider, as pip installs it; return its folder."""
    module = name.replace("-", "_")
    metadata = directory / f"{module}-9.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n")
    (metadata / "entry_points.txt").write_text(f"[apache_airflow_provider]\nprovider_info = {module}:get_info\n")
    (directory / f"{module}.py").write_text(f"def get_info():\n    {body}\n")
    return directory


@pytest.fixture
def amazon_stand_in(tmp_path: Path) -> Path:
    """A provider that declares [aws_ecs_executor] as apache-airflow-providers-amazon does, with a default of its own.

    Its name is before ecs-queue in the alphabet: Airflow reads the providers in that order.
    """
    option = {"description": "d", "version_added": None, "type": "string", "example": None, "default": "theirs"}
    section = {"description": "d", "options": {"conn_id": option, "only_theirs": option}}
    name = "a-provider-with-ecs"
    info = {"package-name": name, "name": name, "description": "d", "versions": ["9.0"]}
    return install_provider(tmp_path / "site", name, f"return {info | {'config': {'aws_ecs_executor': section}}}")


def test_a_section_that_another_provider_declares_is_left_out(
    amazon_stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(amazon_stand_in))
    assert list(get_provider_info()["config"]) == ["ecs_queue"]


@pytest.mark.usefixtures("no_amazon_provider")
def test_a_provider_that_cannot_be_read_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_provider(tmp_path, "broken-provider", "raise RuntimeError")
    install_provider(tmp_path, "provider-without-config", "return {'config': None}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(get_provider_info()["config"]) == ["ecs_queue", "aws_ecs_executor"]


def test_airflow_takes_both_providers_and_keeps_the_others_defaults(amazon_stand_in: Path, tmp_path: Path) -> None:
    if find_spec("airflow") is None:
        pytest.skip("Airflow is not installed here; `make airflow-test` runs it")
    has_amazon = any("providers.amazon" in one.module for one in entry_points(group="apache_airflow_provider"))

    def get_value(section: str, key: str) -> str:
        completed = subprocess.run(
            [sys.executable, "-m", "airflow", "config", "get-value", section, key],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([*others, *sys.path]), "AIRFLOW_HOME": home}
            | {"AIRFLOW__ECS_QUEUE__BROKER_URL_CMD": "printf redis://of-command"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr[-2000:]
        return completed.stdout.splitlines()[-1]

    home = str(tmp_path / "home")
    others = [] if has_amazon else [str(amazon_stand_in)]
    theirs = ("check_health_on_startup", "True") if has_amazon else ("only_theirs", "theirs")
    assert get_value("aws_ecs_executor", theirs[0]) == theirs[1]
    assert get_value("ecs_queue", "broker_url") == "redis://of-command"  # only of keys that are declared sensitive
