"""`broken`: what is listed and shown, what is dropped, and what nothing happens to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.redis_connection import connect
from tests.cli.conftest import Invoke, json_lines

pytestmark = [pytest.mark.server]


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        yield queue


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    """A connection of another program."""
    with connect(redis_url, socket_timeout=5.0, max_connections=2) as connection:
        yield connection


@pytest.fixture
def broken(client: EcsQueue, raw: Any) -> str:
    """A request whose record another program has broken."""
    client.submit(["true"], id="job", queue="etl")
    raw.hset("{ecs-queue}:l:r:job", "launch", "many")
    client.ledger.stop(["job"], "ann")
    return "record:job"


def test_a_broken_record_is_listed_and_shown_with_what_dropping_it_does(
    invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str
) -> None:
    listed = invoke("broken", "list", env=no_worker_environ)
    (line,) = json_lines(invoke("broken", "list", "--json", env=no_worker_environ).stdout)
    shown = invoke("broken", "show", broken, "--json", env=no_worker_environ)

    assert broken in listed.stdout
    assert (line["key"], line["kind"], line["name"]) == (broken, "record", "job")
    assert line["reason"] == "its field launch is no number"
    assert json.loads(shown.stdout)["queue"] == "etl"
    assert "deletes the request's record" in json.loads(shown.stdout)["drop"]
    assert invoke("broken", "show", broken, env=no_worker_environ).exit_code == 0


def test_dropping_all_of_nothing_says_so(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    result = invoke("broken", "drop", "--all", "--yes", env=no_worker_environ)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing is broken\n")


def test_nothing_is_dropped_without_yes(invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str) -> None:
    result = invoke("broken", "drop", broken, env=no_worker_environ)

    assert result.exit_code == 0
    assert "dry run: nothing was done" in result.stderr
    assert broken in invoke("broken", "list", env=no_worker_environ).stdout


def test_what_is_dropped_is_gone_and_its_id_is_free(
    invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str, client: EcsQueue
) -> None:
    result = invoke("broken", "drop", "--all", "--yes", "--json", env=no_worker_environ)

    assert result.exit_code == 0
    assert json_lines(result.stdout) == [{"key": broken, "result": "dropped"}]
    assert client.ledger.list_broken() == []
    assert client.submit(["true"], id="job").id == "job"


def test_what_can_be_used_again_is_not_dropped(
    invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str, client: EcsQueue, raw: Any
) -> None:
    raw.hdel("{ecs-queue}:l:r:job", "launch")

    result = invoke("broken", "drop", broken, "--yes", env=no_worker_environ)

    assert result.exit_code == 1
    assert "was returned, and nothing was deleted" in result.stdout
    assert client.status("job").queue == "etl"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["show", "record:other"], 1),
        (["drop", "record:other", "--yes"], 1),
        (["drop", "--yes"], 2),
        (["drop", "record:job", "--all", "--yes"], 2),
    ],
)
def test_what_is_not_listed_or_not_named_is_not_dropped(
    invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str, arguments: list[str], status: int
) -> None:
    result = invoke("broken", *arguments, env=no_worker_environ)

    assert result.exit_code == status
    assert result.stderr
    assert broken in invoke("broken", "list", env=no_worker_environ).stdout


@pytest.mark.parametrize("command", ["status", "workers"])
def test_status_and_workers_say_that_something_is_broken(
    invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str, client: EcsQueue, command: str
) -> None:
    result = invoke(command, "--json", env=no_worker_environ)

    assert result.exit_code == 1
    assert "1 item of the ledger cannot be used and are kept apart: `ecs-queue broken list`" in result.stderr
    client.ledger.drop_broken(client.ledger.list_broken())
    assert invoke(command, "--json", env=no_worker_environ).exit_code == 0


def test_the_doctor_calls_a_broken_item_an_error(
    invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str
) -> None:
    result = invoke("doctor", "--json", env=no_worker_environ)

    findings = [finding for finding in json_lines(result.stdout) if finding["check"] == "ledger.broken"]
    assert result.exit_code == 1
    assert [(finding["severity"], finding["advice"]) for finding in findings] == [
        ("error", "ecs-queue broken show record:job")
    ]


def test_a_broken_request_is_shown_and_not_stopped(
    invoke: Invoke, no_worker_environ: Mapping[str, str], broken: str
) -> None:
    stopped = invoke("stop", "job", "--json", env=no_worker_environ)

    assert stopped.exit_code == 1
    assert json_lines(stopped.stdout) == [{"id": "job", "state": "LAUNCHED", "result": "broken"}]
    assert "its record in the ledger is broken" in invoke("status", "job", env=no_worker_environ).stdout
    assert "its record in the ledger is broken" in invoke("tasks", "--json", env=no_worker_environ).stdout
