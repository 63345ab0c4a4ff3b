"""What a request is for, and who submitted and stopped it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import UsageError
from tests.cli.conftest import Invoke, json_lines, task_file


def test_labels_are_shown_and_filter(invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path) -> None:
    file = task_file(
        tmp_path,
        {"id": "a", "command": ["x"]},
        {"id": "b", "command": ["x"], "labels": {"team": "ops", "day": "mon"}},
        {"id": "c", "command": ["x"], "labels": {}},
    )
    given = ("--label", "team=data", "--label", "day=mon=1")
    assert invoke("submit", "--file", str(file), *given, env=no_worker_environ).exit_code == 0
    found = json.loads(invoke("status", "a", "--json", env=no_worker_environ).stdout)
    assert found["labels"] == {"day": "mon=1", "team": "data"}
    assert "day=mon=1, team=data" in invoke("status", "a", env=no_worker_environ).stdout

    def ids(*labels: str) -> set[str]:
        options = [word for label in labels for word in ("--label", label)]
        return {line["id"] for line in json_lines(invoke("tasks", "--json", *options, env=no_worker_environ).stdout)}

    assert ids() == {"a", "b", "c"}
    assert ids("team=data") == {"a"}
    assert ids("team=ops", "day=mon") == {"b"}
    assert ids("team=ops", "day=mon=1") == ids("team=") == set()


@pytest.mark.parametrize("label", ["team", "=x", "aws:a=b", "a=50%"])
def test_a_label_that_is_none_is_one_sentence(invoke: Invoke, no_worker_environ: Mapping[str, str], label: str) -> None:
    done = invoke("submit", "--label", label, "--", "true", env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "label" in done.stderr


def test_who_submits_and_stops_is_the_systems_user_the_configured_one_or_the_named_one(
    invoke: Invoke, no_worker_environ: Mapping[str, str]
) -> None:
    configured = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__ACTING_USER": "bob"}
    assert invoke("submit", "--id", "a", "--", "x", env=no_worker_environ).exit_code == 0
    assert invoke("submit", "--id", "b", "--", "x", env=configured).exit_code == 0
    assert invoke("submit", "--id", "c", "--as", "ann", "--", "x", env=configured).exit_code == 0
    for arguments, environ in ((["a"], no_worker_environ), (["b"], configured), (["c", "--as", "ann"], configured)):
        assert invoke("stop", *arguments, env=environ).exit_code == 0
    for name, who in (("a", getpass.getuser()), ("b", "bob"), ("c", "ann")):
        facts = json.loads(invoke("status", name, "--json", env=no_worker_environ).stdout)
        assert (facts["submitted_by"], facts["stop_requested_by"]) == (who, who)
        assert facts["reason"] == f"stopped by {who}"
    shown = invoke("status", "c", env=no_worker_environ).stdout
    assert "submitted by" in shown
    assert invoke("submit", "--id", "a2", "--as", "ann", "--", "x", env=no_worker_environ).exit_code == 0
    again = invoke("submit", "--id", "a2", "--as", "bob", "--", "x", env=no_worker_environ)
    assert again.exit_code == 0, "who submits does not distinguish requests"


@pytest.mark.parametrize("name", ["", "a\x1b[2Jb", "a" * 129, "expiry", "time_limit"])
def test_a_name_that_could_mislead_is_refused(invoke: Invoke, no_worker_environ: Mapping[str, str], name: str) -> None:
    if name:
        done = invoke("submit", "--as", name, "--", "x", env=no_worker_environ)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "\x1b" not in done.stderr
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client, pytest.raises(UsageError, match="by: "):
        client.stop("a", by=name)


def test_a_list_names_requests_by_their_labels_and_shows_commands_only_on_request(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    instance = {"run_id": "manual:1", "dag_id": "sales", "team": "data", "task_id": "load"}
    file = task_file(
        tmp_path,
        {"id": "a", "command": ["load", "it now", "x" * 99], "labels": instance},
        {"id": "b", "command": ["other"], "labels": {"day": "mon"}},
        {"id": "c", "command": ["gone"]},
    )
    assert invoke("submit", "--file", str(file), env=no_worker_environ).exit_code == 0
    assert invoke("stop", "c", env=no_worker_environ).exit_code == 0
    shown = invoke("tasks", env=no_worker_environ).stdout
    assert "sales/load/manual:1, team=data" in shown
    assert "day=mon" in shown
    assert "load 'it" not in shown
    assert "command" not in shown
    revealed = invoke("tasks", "--reveal", env=no_worker_environ).stdout
    assert "load 'it now' xxxx" in revealed
    assert "x" * 60 not in revealed
    assert "other" in revealed
    assert "gone" not in revealed
    unlabelled = invoke("tasks", "--state", "revoked", env=no_worker_environ).stdout
    assert "labels" not in unlabelled
    for option in ("--counts", "--json"):
        assert invoke("tasks", "--reveal", option, env=no_worker_environ).exit_code == 2
