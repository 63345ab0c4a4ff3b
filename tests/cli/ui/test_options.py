"""What is shared by all commands: where a configuration comes from, and what a command takes none of."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecs_queue.cli.ui.options import SharedOptions, load_shared_config
from ecs_queue.errors import UsageError
from tests.cli.conftest import Invoke


def test_the_command_line_overrides_every_other_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ecs_queue.cfg"
    file.write_text("[ecs_queue]\nnamespace = file\nconcurrency = 7\nbroker_url = redis://file:6379/0\n")
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__CONCURRENCY", "8")
    config = SharedOptions(str(file), {"broker_url": "redis://line:6379/0"}).load_config()
    found = (config.namespace, config.concurrency, config.broker_url, config.ledger_url)
    assert found == ("file", 8, "redis://line:6379/0", "redis://line:6379/0")


@pytest.mark.parametrize("key", ["broker_url", "ledger_url"])
def test_a_broker_within_one_process_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} is memory://, which no other process can reach"):
        load_shared_config(SharedOptions(overrides={"broker_url": "redis://127.0.0.1/0", key: "memory://"}))


@pytest.mark.parametrize("command", ["local", "local-ecs", "demo"])
def test_a_command_with_a_server_of_its_own_takes_no_configuration(invoke: Invoke, command: str) -> None:
    done = invoke(command, "--broker-url", "redis://elsewhere/0", "--config", "some.cfg")
    assert done.exit_code == 2
    assert f"{command} takes no --config or --broker-url" in done.stderr


def test_a_configuration_file_that_is_not_there_is_named(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("status", "--config", str(tmp_path / "nope.cfg"))
    assert done.exit_code == 2
    assert "nope.cfg: expected a readable ini file" in done.stderr


def test_a_password_in_the_command_line_is_warned_of_and_not_shown(invoke: Invoke) -> None:
    done = invoke("config", "--broker-url", "redis://:hunter2@127.0.0.1/0")
    assert "--broker-url shows its password in the list of processes; use --broker-url-file" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert invoke("config", "--broker-url", "redis://127.0.0.1/0").stderr.count("list of processes") == 0


def test_a_url_in_a_file_is_in_no_list_of_processes(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://:hunter2@127.0.0.1:1/0\n")
    done = invoke("config", "--broker-url-file", str(file), "--json")
    assert done.exit_code == 0
    assert "redis://:***@127.0.0.1:1/0" in done.stdout
    assert "hunter2" not in done.stdout
    assert done.stderr == ""


def test_a_url_and_its_file_exclude_each_other(invoke: Invoke) -> None:
    done = invoke("config", "--ledger-url", "redis://127.0.0.1/0", "--ledger-url-file", "url")
    assert done.exit_code == 2
    assert "--ledger-url and --ledger-url-file exclude each other" in done.stderr
