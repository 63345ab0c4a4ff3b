"""Teams: a configuration, queues and results of their own, as Airflow's own ExecutorConf reads them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor

from ecs_queue.airflow.cli import get_cli_commands
from ecs_queue.airflow.config import AirflowSources, build_owner_name, team_namespace
from ecs_queue.airflow.executor import EcsQueueExecutor
from ecs_queue.cli import main
from ecs_queue.config import Config, load_config
from tests.airflow.fake_conf import FakeAirflowConf
from tests.airflow.harness import SETTINGS, AirflowHarness, FakeTaskInstance, make_task_workload, task_key

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(
        "team_name" not in inspect.signature(conf.get).parameters or not hasattr(BaseExecutor, "supports_multi_team"),
        reason="this Airflow has no teams",
    ),
]


def make_executor(team: str | None, job_id: int = 7) -> EcsQueueExecutor:
    executor = EcsQueueExecutor(parallelism=100, team_name=team)
    executor.job_id = job_id
    return executor


@pytest.fixture
def teams(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], EcsQueueExecutor]:
    """Two teams on one server, `red` and `blue`, each with a cluster of its own; by name."""
    for team in ("RED", "BLUE"):
        monkeypatch.setenv(f"AIRFLOW__{team}___ECS_QUEUE__BROKER_URL", redis_url)
        for name, value in SETTINGS.items():
            monkeypatch.setenv(name.replace("AIRFLOW__", f"AIRFLOW__{team}___"), value)
        monkeypatch.setenv(f"AIRFLOW__{team}___AWS_ECS_EXECUTOR__CLUSTER", f"cluster-{team.lower()}")
    return make_executor


def make_started_harness(executor: EcsQueueExecutor) -> AirflowHarness:
    """The team's executor, as `start` would set it up, with its real ledger and broker."""
    harness = AirflowHarness.from_executor(executor)
    executor.start()
    return harness


def test_two_teams_on_one_server_share_no_queue_record_or_result(teams: Callable[[str], EcsQueueExecutor]) -> None:
    red, blue = make_started_harness(teams("red")), make_started_harness(teams("blue"))
    red_item, blue_item = make_task_workload("same"), make_task_workload("same")
    red.queue(red_item)
    blue.queue(blue_item)
    red.heartbeat()
    blue.heartbeat()
    red_id, blue_id = red.request_id_of(red_item), blue.request_id_of(blue_item)
    assert (red.record(blue_id), blue.record(red_id)) == (None, None)
    assert [one.executor.ledger_access.config.base_profile.cluster for one in (red, blue)] == [
        "cluster-red",
        "cluster-blue",
    ]
    red.finish_request(red_id)
    blue.heartbeat()
    assert task_key(blue_item) not in {key for key, (state, _) in blue.collect_events().items() if state == "success"}
    red.heartbeat()
    assert red.collect_events()[task_key(red_item)][0] == "success"
    assert blue.executor.running == {task_key(blue_item)}
    red.close()
    blue.close()


def test_teams_that_share_a_namespace_still_have_results_of_their_own(
    teams: Callable[[str], EcsQueueExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for team in ("RED", "BLUE"):
        monkeypatch.setenv(f"AIRFLOW__{team}___ECS_QUEUE__NAMESPACE", "shared")
    red, blue = make_started_harness(teams("red")), make_started_harness(teams("blue"))
    item = make_task_workload()
    red.queue(item)
    red.heartbeat()
    request_id = red.request_id_of(item)
    red.collect_events()
    red.finish_request(request_id)
    blue.heartbeat()
    assert blue.collect_events() == {}
    assert blue.executor.ledger_access.get_undelivered_results(10) == []
    red.heartbeat()
    assert red.collect_events()[task_key(item)][0] == "success"
    red.close()
    blue.close()


def test_a_teams_task_is_adopted_by_the_same_teams_executor_alone(teams: Callable[[str], EcsQueueExecutor]) -> None:
    red = make_started_harness(teams("red"))
    item = make_task_workload()
    red.queue(item)
    red.heartbeat()
    orphan = FakeTaskInstance(item, red.request_id_of(item))
    later, blue = make_started_harness(make_executor("red", 8)), make_started_harness(make_executor("blue", 8))
    assert list(blue.executor.try_adopt_task_instances([orphan])) == [orphan]
    assert list(later.executor.try_adopt_task_instances([orphan])) == []
    assert later.executor.running == {task_key(item)}
    for one in (red, later, blue):
        one.close()


def test_a_team_uses_nothing_of_the_global_configuration(
    teams: Callable[[str], EcsQueueExecutor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "ecs_queue.cfg"
    file.write_text("[ecs_queue]\nnamespace = global\n[aws_ecs_executor]\nplatform_version = 1.3.0\n")
    monkeypatch.setenv("ECS_QUEUE_CONFIG", str(file))
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__PLATFORM_VERSION", "1.4.0")
    config = teams("red")._load_config()
    assert config.namespace == "ecs-queue-red"
    assert config.base_profile.platform_version not in ("1.3.0", "1.4.0")
    global_config = make_executor(None)._load_config()
    assert global_config.namespace == "global"
    assert global_config.base_profile.platform_version == "1.4.0"


def test_a_teams_profiles_are_found_in_the_environment_and_in_its_sections(
    teams: Callable[[str], EcsQueueExecutor],
) -> None:
    assert set(teams("red")._load_config().named_profiles) == {"gpu"}
    conf = FakeAirflowConf("[aws_ecs_executor.global]\n[red=aws_ecs_executor.spot]\n[blue=aws_ecs_executor.big]\n")
    config = AirflowSources(conf, "airflow.cfg", "red").load(environ={})
    assert set(config.named_profiles) == {"spot"}


def test_the_owner_names_the_team() -> None:
    assert build_owner_name(make_executor("red")) == "airflow-7-red"
    assert build_owner_name(make_executor("red"), "etl") == "etl-7-red"


@pytest.mark.parametrize(
    ("team", "namespace"), [("red", "ecs-queue-red"), ("a.b", "ecs-queue-a_b"), ("x" * 50, "ecs-queue-xxxxxxxxxxxxx-")]
)
def test_a_teams_namespace_is_one_that_can_be_configured(team: str, namespace: str) -> None:
    name = team_namespace(team)
    assert name.startswith(namespace)
    environ = {"AIRFLOW__ECS_QUEUE__NAMESPACE": name, "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://"}
    assert load_config(environ=environ).namespace == name


def test_long_names_of_teams_do_not_meet() -> None:
    assert team_namespace("x" * 49 + "a") != team_namespace("x" * 49 + "b")


class TestTeamOption:
    @pytest.fixture
    def exported(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Config]]:
        """Runs `airflow ecs-queue status ...` and returns the configuration that our command would read."""
        before = dict(os.environ)
        read: list[Config] = []
        monkeypatch.setattr(main.cli, "main", lambda words, obj: read.append(obj.load_config()))

        def enter(**arguments: Any) -> Config:
            [group] = get_cli_commands()
            [status] = [command for command in group.subcommands if command.name == "status"]
            status.func(type("Arguments", (), {"id": None, "json": False, **arguments})())
            return read.pop()

        yield enter
        os.environ.clear()
        os.environ.update(before)

    def test_with_a_team_it_works_on_that_teams_configuration_alone(
        self, teams: object, exported: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
        monkeypatch.setenv("AIRFLOW__ECS_QUEUE__NAMESPACE", "global")
        monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR_BIG__CLUSTER", "global")
        assert exported().namespace == "global"
        config = exported(team="blue")
        assert config.namespace == "ecs-queue-blue"
        assert config.base_profile.cluster == "cluster-blue"
        assert "big" not in config.named_profiles

    def test_a_team_without_multi_team_is_rejected(self, exported: Callable[..., Config]) -> None:
        with pytest.raises(SystemExit, match="multi_team"):
            exported(team="blue")
