"""A worker, `airflow ecs-queue worker` and the executor read one configuration, whatever it is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import example, given, settings

from ecs_queue.airflow.config import AirflowSources, load_executor_config
from ecs_queue.config import load_config
from ecs_queue.config.layers import CONFIG_FILE_VARIABLE
from tests.airflow.fake_conf import FakeAirflowConf
from tests.config.random_configs import (
    VARIABLES,
    check_texts,
    outcome_of,
    random_sections,
    read_by_all,
    render,
    render_variables,
)


@settings(deadline=None, max_examples=200)
@given(random_sections(), random_sections())
@example({"aws_ecs_executor": {"assign_public_ip": "True"}, "aws_ecs_executor.p": {"assign_public_ip": "False"}}, {})
@example({"aws_ecs_executor.ec2": {"launch_type": "EC2", "subnets": ""}}, {"aws_ecs_executor": {"subnets": "s"}})
@example({"ecs_queue": {"namespace": "staging"}}, {"ecs_queue": {"namespace": "ecs-queue"}})
@example({"ecs_queue": {"broker_url_cmd": "echo redis://c"}}, {"ecs_queue": {"concurrency": "32"}})
@example({"ecs_queue": {"unknown": "x"}}, {})
@example({"DEFAULT": {"namespace": "x", "own": "y"}, "ecs_queue": {}}, {})
def test_all_readers_agree_on_every_value_and_its_origin(
    in_file: dict[str, dict[str, str]], in_variables: dict[str, dict[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "airflow.cfg")
        file.write_text(render(in_file))
        environ = VARIABLES | render_variables(in_variables)
        with patch.dict(os.environ, VARIABLES):
            worker, worker_in_airflow, executor = read_by_all(
                str(file), environ, FakeAirflowConf(render(in_file), environ)
            )
    assert worker == worker_in_airflow == executor


@settings(deadline=None, max_examples=100)
@given(random_sections(), random_sections(), random_sections())
def test_what_the_file_of_the_workers_sets_counts_over_airflow_cfg(
    in_cfg: dict[str, dict[str, str]], in_file: dict[str, dict[str, str]], in_variables: dict[str, dict[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ecs_queue.cfg")
        file.write_text(render(in_file))
        environ = VARIABLES | render_variables(in_variables) | {CONFIG_FILE_VARIABLE: str(file)}
        sources = AirflowSources(FakeAirflowConf(render(in_cfg), environ), "airflow.cfg")
        found = [
            outcome_of(lambda: sources.load(environ=environ)),
            outcome_of(lambda: load_executor_config(sources, environ)),
        ]
        alone = outcome_of(lambda: load_config(environ=environ))
    assert found[0] == found[1]
    if isinstance(found[0], tuple) and isinstance(alone, tuple):
        of_worker = {(value.section.lower(), value.key): value for value in alone[1] if "default" not in value.origin}
        of_airflow = {(value.section.lower(), value.key): value for value in found[0][1]}
        assert {key: of_airflow[key] for key in of_worker if key in of_airflow} == {
            key: value for key, value in of_worker.items() if key in of_airflow
        }


@settings(deadline=None, max_examples=100)
@given(random_sections())
@example({"aws_ecs_executor": {"cluster": "${STAGE}-%%", "region_name": "%(cluster)s"}})
@example({"ecs_queue": {"broker_url_cmd": "echo ' redis://:p%%@h '", "namespace": "x-${NESTED}"}})
@example({"ecs_queue": {"broker_url": "", "broker_url_cmd": "echo redis://c:1/0"}})
def test_every_text_is_the_one_that_airflow_itself_reads(in_file: dict[str, dict[str, str]]) -> None:
    check_texts(in_file, lambda file: FakeAirflowConf(Path(file).read_text()))
