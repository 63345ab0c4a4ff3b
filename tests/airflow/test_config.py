"""Airflow's configuration, as ecs-queue reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from ecs_queue.airflow.config import (
    MAX_SOCKET_TIMEOUT_SECONDS,
    AirflowSources,
    load_executor_config,
    resolve_queue,
)
from ecs_queue.airflow.provider import get_provider_info
from ecs_queue.config import Config, load_config
from ecs_queue.errors import ConfigError
from ecs_queue.server_url import response_timeout
from tests.airflow.fake_conf import FakeAirflowConf
from tests.config.random_configs import (
    VARIABLES,
    check_texts,
    random_sections,
    read_by_all,
    render,
    render_variables,
)


def load(text: str = "", environ: dict[str, str] | None = None, secrets: dict[str, str] | None = None) -> Config:
    """The executor's configuration for an airflow.cfg, variables and a secrets backend."""
    environ = environ or {}
    return load_executor_config(AirflowSources(FakeAirflowConf(text, environ, secrets), "airflow.cfg"), environ)


def origin(config: Config, key: str, section: str = "ecs_queue") -> str:
    (found,) = [item.origin for item in config.effective_values if (item.section, item.key) == (section, key)]
    return found


def test_values_come_from_airflow_wherever_it_has_them_from() -> None:
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs"}
    config = load("[ecs_queue]\nnamespace = prod\n", environ)
    assert config.namespace == "prod"
    assert config.base_profile.cluster == "jobs"
    assert origin(config, "namespace") == "airflow.cfg [ecs_queue]"
    assert origin(config, "cluster", "aws_ecs_executor") == "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER"


def test_a_section_of_airflow_cfg_makes_a_profile() -> None:
    config = load("[core]\nexecutor = x\n[aws_ecs_executor.gpu]\ncluster = gpus\n")
    assert config.profile("gpu").cluster == "gpus"
    assert resolve_queue(config, "gpu") == "gpu"
    assert resolve_queue(config, "other") == "default"
    assert resolve_queue(config, None) == "default"


def test_a_profile_that_only_the_environment_has_is_found() -> None:
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER": "gpus"}
    assert load(environ=environ).profile("gpu").cluster == "gpus"


def test_a_value_that_equals_the_default_is_set() -> None:
    text = "[aws_ecs_executor]\nassign_public_ip = True\n[aws_ecs_executor.private]\nassign_public_ip = False\n"
    config = load(text)
    assert config.base_profile.assign_public_ip is True
    assert config.profile("private").assign_public_ip is False
    assert resolve_queue(config, "private") == "private"


def test_an_empty_value_removes_the_inherited_one() -> None:
    text = "[aws_ecs_executor]\nsubnets = subnet-1\n[aws_ecs_executor.ec2]\nlaunch_type = EC2\nsubnets =\n"
    assert load(text).profile("ec2").subnets == ()


def test_a_variable_that_equals_the_default_wins_over_the_file_of_the_workers(tmp_path: Path) -> None:
    file = tmp_path / "ecs_queue.cfg"
    file.write_text("[ecs_queue]\nnamespace = staging\n")
    environ = {"ECS_QUEUE_CONFIG": str(file), "AIRFLOW__ECS_QUEUE__NAMESPACE": "ecs-queue"}
    assert load(environ=environ).namespace == load_config(environ=environ).namespace == "ecs-queue"


def test_the_file_of_the_workers_wins_over_airflow_cfg(tmp_path: Path) -> None:
    file = tmp_path / "ecs_queue.cfg"
    file.write_text("[ecs_queue]\nnamespace = from-file\n")
    config = load("[ecs_queue]\nnamespace = ecs-queue\nconcurrency = 5\n", {"ECS_QUEUE_CONFIG": str(file)})
    assert (config.namespace, config.concurrency) == ("from-file", 5)


def test_an_unknown_key_of_airflow_cfg_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"broker_ulr.*did you mean 'broker_url'.*from airflow.cfg \[ecs_queue\]"):
        load("[ecs_queue]\nbroker_ulr = redis://h\n")


def test_a_secret_comes_from_the_secrets_backend() -> None:
    secrets = {"path": "redis://:hunter2@backend:6379/0"}
    config = load(environ={"AIRFLOW__ECS_QUEUE__BROKER_URL_SECRET": "path"}, secrets=secrets)
    assert config.broker_url == secrets["path"]
    assert origin(config, "broker_url") == "AIRFLOW__ECS_QUEUE__BROKER_URL_SECRET"
    config = load("[ecs_queue]\nbroker_url_secret = path\n", secrets=secrets)
    assert config.broker_url == secrets["path"]
    assert origin(config, "broker_url") == "airflow.cfg [ecs_queue] broker_url_secret"


def test_a_secret_that_is_not_there_is_an_error_that_names_the_key() -> None:
    with pytest.raises(ConfigError, match="broker_url: expected a value in Airflow's secrets backend, found none"):
        load(environ={"AIRFLOW__ECS_QUEUE__BROKER_URL_SECRET": "path"})


def test_waits_are_short_and_without_a_barrier() -> None:
    config = load("[ecs_queue]\nsocket_timeout_seconds = 30\ndurability = aof\n")
    assert config.socket_timeout_seconds == MAX_SOCKET_TIMEOUT_SECONDS
    assert config.durability == "aof"  # what the server must be capable of; the executor itself has no barrier


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("redis://:p%40w@h/0?socket_timeout=30", "redis://:p%40w@h/0?socket_timeout=0.3"),
        (
            "sentinel://h/0?service=s&socket_connect_timeout=1m&socket_timeout=0.1",
            "sentinel://h/0?service=s&socket_connect_timeout=0.3&socket_timeout=0.1",
        ),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis://h/0", "redis://h/0"),
    ],
)
def test_a_url_makes_no_wait_longer(written: str, used: str) -> None:
    """Its own time limits win over the configuration's, and a heartbeat of the scheduler waits for them."""
    config = load(f"[ecs_queue]\nbroker_url = {written.replace('%', '%%')}\n")
    assert (config.broker_url, config.ledger_url) == (used, used)
    assert response_timeout(config.ledger_url, config.socket_timeout_seconds) <= MAX_SOCKET_TIMEOUT_SECONDS


def test_the_shipped_airflow_cfg_is_valid_for_workers_too() -> None:
    file = Path(__file__).parents[2] / "conf" / "airflow.cfg"
    config = load_config(str(file), {})
    for profile in config.profiles():
        profile.require_launchable()
    assert [profile.queue for profile in config.profiles()] == ["default", "spot"]


@pytest.mark.airflow
class TestRealAirflow:
    """The same comparisons as without Airflow, with the parser of the Airflow that is installed."""

    @staticmethod
    def open_conf(file: str) -> Any:
        configuration = pytest.importorskip("airflow.configuration")
        conf = configuration.AirflowConfigParser()
        conf.read(file)
        return conf

    @settings(deadline=None, max_examples=30)
    @given(random_sections(), random_sections())
    def test_all_readers_agree_on_every_value_and_its_origin(
        self, in_file: dict[str, dict[str, str]], in_variables: dict[str, dict[str, str]]
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "airflow.cfg")
            file.write_text(render(in_file))
            environ = VARIABLES | render_variables(in_variables)
            worker, worker_in_airflow, executor = read_by_all(str(file), environ, self.open_conf(str(file)))
        assert worker == worker_in_airflow == executor

    @settings(deadline=None, max_examples=30)
    @given(random_sections())
    def test_every_text_is_the_one_that_airflow_itself_reads(self, in_file: dict[str, dict[str, str]]) -> None:
        check_texts(in_file, self.open_conf)

    def test_a_generated_airflow_cfg_sets_nothing(self, tmp_path: Path) -> None:
        configuration = pytest.importorskip("airflow.configuration")
        with (tmp_path / "airflow.cfg").open("w") as file:
            configuration.conf.write(file, include_providers=True, only_defaults=True, show_values=True)
        sources = AirflowSources(self.open_conf(str(tmp_path / "airflow.cfg")), "airflow.cfg")
        assert "[ecs_queue]" in (tmp_path / "airflow.cfg").read_text()
        ours = set(get_provider_info()["config"])  # not what the Amazon provider declares, where it is installed
        values = [value for value in sources.load(environ={}).effective_values if value.section in ours]
        assert {value.origin.split()[0] for value in values} == {"default"}
