"""Airflow's configuration, as ecs-queue reads it."""

from __future__ import annotations

from pathlib import Path

from ecs_queue.airflow.settings import ANSWER_SECONDS, queue_of, read_config
from ecs_queue.config import load_config


class Conf:
    """Stands for Airflow's: (section, key) -> value."""

    def __init__(self, values: dict[tuple[str, str], str]) -> None:
        self.values = values

    def get(self, section: str, key: str, *, fallback: str | None = None) -> str | None:
        return self.values.get((section, key), fallback)


def test_values_come_from_airflow_wherever_it_has_them_from() -> None:
    conf = Conf({("ecs_queue", "namespace"): "prod", ("aws_ecs_executor", "cluster"): "jobs"})
    config = read_config(conf, [], {})
    assert config.namespace == "prod"
    assert config.base_profile.cluster == "jobs"


def test_a_section_of_airflow_cfg_makes_a_profile() -> None:
    conf = Conf({("aws_ecs_executor.gpu", "cluster"): "gpus"})
    config = read_config(conf, ["core", "aws_ecs_executor.gpu"], {})
    assert config.profile("gpu").cluster == "gpus"
    assert queue_of(config, "gpu") == "gpu"
    assert queue_of(config, "other") == "default"
    assert queue_of(config, None) == "default"


def test_a_profile_that_only_the_environment_has_is_found() -> None:
    conf = Conf({("aws_ecs_executor.gpu", "cluster"): "gpus"})
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER": "gpus"}
    assert read_config(conf, [], environ).profile("gpu").cluster == "gpus"


def test_the_providers_default_does_not_hide_the_file_of_the_workers(tmp_path: Path) -> None:
    file = tmp_path / "ecs_queue.cfg"
    file.write_text("[ecs_queue]\nnamespace = from-file\n")
    conf = Conf({("ecs_queue", "namespace"): "ecs-queue"})
    assert read_config(conf, [], {"ECS_QUEUE_CONFIG": str(file)}).namespace == "from-file"


def test_waits_are_short_and_without_a_barrier() -> None:
    conf = Conf({("ecs_queue", "socket_timeout_seconds"): "30", ("ecs_queue", "durability"): "aof"})
    config = read_config(conf, [], {})
    assert config.socket_timeout_seconds == ANSWER_SECONDS
    assert config.durability == "server"


def test_the_shipped_airflow_cfg_is_valid_for_workers_too() -> None:
    file = Path(__file__).parents[2] / "conf" / "airflow.cfg"
    config = load_config(str(file), {})
    for profile in config.profiles():
        profile.require_launchable()
    assert [profile.queue for profile in config.profiles()] == ["default", "spot"]
