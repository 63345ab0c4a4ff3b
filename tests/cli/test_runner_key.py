"""`ecs-queue runner-key`: the secret of a queue's runners."""

from __future__ import annotations

from click.testing import CliRunner

from ecs_queue.cli.main import cli
from ecs_queue.runs.runner_key import RunnerKeys

SIGNING_KEYS = f"k2:{'b' * 32},k1:{'a' * 32}"


def test_the_keys_are_printed_as_a_runner_reads_them() -> None:
    result = CliRunner().invoke(cli, ["runner-key", "etl"], env={"AIRFLOW__ECS_QUEUE__SIGNING_KEYS": SIGNING_KEYS})
    assert result.exit_code == 0
    assert not RunnerKeys(result.stdout.strip().split(",")).is_empty
    assert "b" * 32 not in result.output


def test_without_keys_runners_need_none_and_a_name_that_is_none_is_refused() -> None:
    result = CliRunner().invoke(cli, ["runner-key", "etl"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "runners need no key" in result.stderr
    assert CliRunner().invoke(cli, ["runner-key", "e t l"]).exit_code == 2
