"""`tasks`: filters, counts, and a list that suits the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.cli import tasks as cli_tasks
from ecs_queue.cli.tasks import _print_records
from ecs_queue.cli.ui import output
from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.cli.conftest import Invoke, json_lines

NOW = 1_700_000_000.0
UUID = "eb8aeb81-97ec-445a-921c-90e732b77302"


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="me") as queue:
        yield queue


def test_counts_are_by_queue_and_state_of_all_selected_requests(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    tasks = [{"id": f"t{n}", "command": ["true"], "queue": "etl" if n % 3 else "default"} for n in range(9)]
    client.submit_many(tasks)
    client.stop_many(["t0", "t1"], by="operator")

    def counts(*arguments: str) -> dict[str, tuple[int, int, int]]:
        lines = json_lines(invoke("tasks", "--counts", "--json", *arguments, env=no_worker_environ).stdout)
        return {
            line["queue"]: (line["requests"], line["states"]["QUEUED"], line["states"]["REVOKED"]) for line in lines
        }

    assert counts() == {"default": (3, 2, 1), "etl": (6, 5, 1)}
    assert counts("--limit", "1") == counts()
    assert counts("--reason", "stopped by operator", "--queue", "etl") == {"etl": (1, 0, 1)}
    assert counts("--owner", "me", "--since", "1h") == counts()
    assert counts("--owner", "unknown") == {}
    table = invoke("tasks", "--counts", env=no_worker_environ).stdout.splitlines()
    assert [line.split() for line in table] == [
        ["queue", "requests", "QUEUED", "REVOKED"],
        ["default", "3", "2", "1"],
        ["etl", "6", "5", "1"],
        ["all", "9", "7", "2"],
    ]
    assert invoke("tasks", "--counts", "--state", "FAILED", env=no_worker_environ).stderr == "no such requests\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "--queue", "elt"),
        ("tasks", "--queue", "elt", "--counts"),
        ("purge", "elt"),
        ("stop", "--queue", "elt"),
        ("retry", "--state", "failed", "--queue", "elt"),
    ],
)
def test_where_nothing_is_found_a_queue_without_a_worker_is_named(
    invoke: Invoke, no_worker_environ: Mapping[str, str], arguments: tuple[str, ...]
) -> None:
    done = invoke(*arguments, env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "ecs-queue: no live worker serves queue elt; check its name\n" in done.stderr


def test_a_truncated_list_is_reported(invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue) -> None:
    client.submit_many({"command": ["true"]} for _ in range(3))
    cut = invoke("tasks", "--limit", "2", env=no_worker_environ)
    assert len(cut.stdout.splitlines()) == 3
    assert "the newest 2, there are more" in cut.stderr
    assert invoke("tasks", "--limit", "3", env=no_worker_environ).stderr == ""


def test_a_list_for_a_program_is_whole_unless_a_limit_is_given(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit_many({"command": ["true"]} for _ in range(60))
    whole = invoke("tasks", "--state", "queued", "--json", env=no_worker_environ)
    assert (len(json_lines(whole.stdout)), whole.stderr) == (60, "")
    cut = invoke("tasks", "--json", "--limit", "59", env=no_worker_environ)
    assert (len(json_lines(cut.stdout)), cut.stderr.startswith("the newest 59, there are more")) == (59, True)
    assert invoke("tasks", "--json", "--limit", "60", env=no_worker_environ).stderr == ""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_an_id_is_whole_in_one_line_of_every_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (cli_tasks, output):
        monkeypatch.setattr(module, "is_terminal", lambda *_: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = Record(id=UUID, queue="default", state=State.SUCCESS, attempts=1, exit_code=0, reason="Essential container")
    pulled = Record(id="pull", queue="default", state=State.REMOVED, attempts=3, reason="CannotPull" + "x" * 200)
    _print_records([ran, pulled], 50, NOW)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= max(columns, 64)
    assert sum(UUID in line for line in lines) == 1
    assert not any("Essential" in line for line in lines)  # the exit code says it all
    assert any("CannotPull" in line for line in lines)
