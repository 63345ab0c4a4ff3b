"""The package's description for Airflow."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest

from ecs_queue.airflow.provider import get_provider_info
from ecs_queue.config.keys import MAIN_KEYS, PROFILE_KEYS


def test_every_key_of_the_configuration_is_described_with_its_default() -> None:
    config = get_provider_info()["config"]
    for section, keys in (("ecs_queue", MAIN_KEYS), ("aws_ecs_executor", PROFILE_KEYS)):
        options = config[section]["options"]
        assert list(options) == list(keys)
        for name, key in keys.items():
            assert options[name]["default"] == key.default
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
