"""On a terminal of 80 columns every word is whole; NO_COLOR, a plain terminal and its encoding are respected."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.client.client import EcsQueue
from tests.cli.terminal import plain, run_on_terminal
from tests.processes import CLI_COMMAND
from tests.worker_info import make_worker_info

QUEUE = "nightly_reports_of_the_finance_department"


@pytest.fixture
def environ(no_worker_environ: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **no_worker_environ}


@pytest.fixture
def client(environ: Mapping[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=environ, owner="") as queue:
        queue.submit(["true"], queue=QUEUE)
        queue.stop(queue.submit(["true"]).id, by="the operator who is on call this night, as he wrote")
        worker = make_worker_info(
            "launcher-in-eu-central-1a-1",
            queues=["default", QUEUE],
            health="default: the role may not call ecs:RunTask",
            launched_total=4,
            ended_total=3,
        )
        queue.ledger.heartbeat(worker, 300)
        yield queue


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("command", ["status", "tasks", "workers", "queues"])
def test_no_word_is_broken(command: str, columns: int, environ: Mapping[str, str], client: EcsQueue) -> None:
    status, shown = run_on_terminal(command, environ=environ, columns=columns)
    assert status in (0, 1), shown
    whole = run_on_terminal(command, environ=environ, columns=400)[1]
    words = {re.sub(r"\d+", "0", word) for word in plain(whole).split() if "─" not in word}
    found = {re.sub(r"\d+", "0", word) for word in plain(shown).split() if "─" not in word}
    if command == "tasks":  # a block says in words what the head of the table says
        words = {record.id for record in client.tasks()} | {QUEUE, "QUEUED", "REVOKED"}
        found = set(plain(shown).replace(",", "").split())
    assert words - found - {"queue", "name"} == set(), shown  # the heads of first columns, which blocks leave out
    assert max(len(line) for line in plain(shown).splitlines()) <= columns, shown


@pytest.mark.parametrize("command", ["status", "tasks", "workers", "queues"])
def test_with_no_color_nothing_is_coloured(command: str, environ: Mapping[str, str], client: EcsQueue) -> None:
    colour = re.compile(r"\x1b\[(\d+;)*(3[0-7]|9[0-7]|38)[;m]")
    _, shown = run_on_terminal(command, environ={**environ, "NO_COLOR": "1"})
    assert not colour.search(shown)
    if command == "tasks":
        assert colour.search(run_on_terminal(command, environ=environ)[1])


@pytest.mark.parametrize("term", ["dumb", "unknown"])
@pytest.mark.parametrize(
    "command", ["status", "status --watch", "tasks", "tasks --watch", "workers", "queues", "config", "top"]
)
def test_a_plain_terminal_gets_no_escape_sequence(
    command: str, term: str, environ: Mapping[str, str], client: EcsQueue
) -> None:
    status, shown = run_on_terminal(*command.split(), environ=environ, term=term)
    assert status in (0, 1), shown
    assert "\x1b" not in shown
    assert QUEUE in shown or command == "config"


def test_a_character_that_the_terminal_does_not_have_is_a_question_mark(
    environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit(["true"], labels={"team": "Büro"})
    status, shown = run_on_terminal("tasks", environ={**environ, "PYTHONIOENCODING": "ascii"}, columns=250)
    assert (status, "team=B?ro" in shown) == (0, True), shown


@pytest.mark.parametrize("command", ["status", "tasks"])
def test_without_a_terminal_watch_shows_it_once(command: str, environ: Mapping[str, str], client: EcsQueue) -> None:
    done = subprocess.run([*CLI_COMMAND, command, "--watch"], env=environ, capture_output=True, timeout=60, check=False)
    assert QUEUE in done.stdout.decode()
    assert done.returncode in (0, 1)
