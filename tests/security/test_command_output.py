"""No command shows the server's password or a key, and only those that docs/security.md names show a payload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from ecs_queue.cli.main import cli
from tests.security.installation import COMMANDS, OPERATOR, SECRET, Installation, run_installation

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

KEY = "c4n4ry" * 8
#: Without encryption_keys the journal shows commands; docs/journal.md says so.
SHOW_PAYLOADS = ("journal", "replay waits --explain")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with run_installation(tmp_path_factory.mktemp("output") / "journal.jsonl") as made:
        yield made


@pytest.mark.parametrize("password", [f"{OPERATOR}-pw", "wrong-c4n4ry"])
@pytest.mark.parametrize("line", [line for line in COMMANDS if line != "worker"])
def test_no_command_shows_a_password_or_a_key(installation: Installation, line: str, password: str) -> None:
    environ = installation.environ(OPERATOR)
    url = environ["AIRFLOW__ECS_QUEUE__BROKER_URL"].replace(f"{OPERATOR}-pw", password)
    environ |= {"AIRFLOW__ECS_QUEUE__BROKER_URL": url, "AIRFLOW__ECS_QUEUE__SIGNING_KEYS": f"k1:{KEY}"}
    environ |= {"AIRFLOW__ECS_QUEUE__LEDGER_URL": url, "AWS_SECRET_ACCESS_KEY": KEY}
    words = [word.format(user=OPERATOR, journal=str(installation.journal_file)) for word in line.split()]
    end_of_options = words.index("--") if "--" in words else len(words)
    words[end_of_options:end_of_options] = ["--log-level", "debug"]

    result = CliRunner().invoke(cli, words, env=environ)

    assert result.exit_code in (0, 1, 2), result.output
    assert "No such option" not in result.output
    assert KEY not in result.output
    assert password not in result.output
    assert SECRET not in result.output or line.startswith(SHOW_PAYLOADS)
