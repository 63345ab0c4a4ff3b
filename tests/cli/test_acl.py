"""`ecs-queue acl`: names of submitters that would share results or a password are refused."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ecs_queue.cli.main import cli


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("etl", "etl-2"), "etl could receive the results of etl-2"),
        (("etl-2", "etl"), "etl could receive the results of etl-2"),
        (("team-a", "team_a"), "the same password"),
        (("etl", "ETL"), "the same password"),
    ],
)
def test_submitters_that_would_share_results_or_a_password_are_refused(names: tuple[str, str], reason: str) -> None:
    result = CliRunner().invoke(cli, ["acl", *(word for name in names for word in ("--submitter", name))])
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stdout == ""


def test_submitters_whose_names_only_begin_alike_are_printed() -> None:
    result = CliRunner().invoke(cli, ["acl", "--submitter", "etl", "--submitter", "etl2"])
    assert result.exit_code == 0
    assert result.stdout.count("results.etl-*") == 1
    assert result.stdout.count("results.etl2-*") == 1
