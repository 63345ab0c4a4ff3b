"""Airflow's configuration, as ecs-queue reads it."""

from __future__ import annotations

from pathlib import Path

from ecs_queue.airflow.config import MAX_SOCKET_TIMEOUT_SECONDS, load_airflow_config, resolve_queue
from ecs_queue.config import load_config
from tests.airflow.fake_conf import FakeAirflowConf


def test_values_come_from_airflow_wherever_it_has_them_from() -> None:
    conf = FakeAirflowConf({("ecs_queue", "namespace"): "prod", ("aws_ecs_executor", "cluster"): "jobs"})
    config = load_airflow_config(conf, [], {})
    assert config.namespace == "prod"
    assert config.base_profile.cluster == "jobs"


def test_a_section_of_airflow_cfg_makes_a_profile() -> None:
    conf = FakeAirflowConf({("aws_ecs_executor.gpu", "cluster"): "gpus"})
    config = load_airflow_config(conf, ["core", "aws_ecs_executor.gpu"], {})
    assert config.profile("gpu").cluster == "gpus"
    assert resolve_queue(config, "gpu") == "gpu"
    assert resolve_queue(config, "other") == "default"
    assert resolve_queue(config, None) == "default"


def test_a_profile_that_only_the_environment_has_is_found() -> None:
    conf = FakeAirflowConf({("aws_ecs_executor.gpu", "cluster"): "gpus"})
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER": "gpus"}
    assert load_airflow_config(conf, [], environ).profile("gpu").cluster == "gpus"


def test_the_providers_default_does_not_hide_the_file_of_the_workers(tmp_path: Path) -> None:
    file = tmp_path / "ecs_queue.cfg"
    file.write_text("[ecs_queue]\nnamespace = from-file\n")
    conf = FakeAirflowConf({("ecs_queue", "namespace"): "ecs-queue"})
    assert load_airflow_config(conf, [], {"ECS_QUEUE_CONFIG": str(file)}).namespace == "from-file"


def test_waits_are_short_and_without_a_barrier() -> None:
    conf = FakeAirflowConf({("ecs_queue", "socket_timeout_seconds"): "30", ("ecs_queue", "durability"): "aof"})
    config = load_airflow_config(conf, [], {})
    assert config.socket_timeout_seconds == MAX_SOCKET_TIMEOUT_SECONDS
    assert config.durability == "server"


def test_the_shipped_airflow_cfg_is_valid_for_workers_too() -> None:
    file = Path(__file__).parents[2] / "conf" / "airflow.cfg"
    config = load_config(str(file), {})
    for profile in config.profiles():
        profile.require_launchable()
    assert [profile.queue for profile in config.profiles()] == ["default", "spot"]
