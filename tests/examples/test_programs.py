"""The programs of examples/, run as their first lines say, on a local stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecs_queue.local.ecs import LocalEcsOptions
from ecs_queue.local.stack import LocalStack, StackOptions
from tests.processes import IMPORT_ROOT
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 90.0


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a shell after `eval "$(ecs-queue local env)"`."""
    require_redis_binary()
    directory = tmp_path_factory.mktemp("stack")
    stack = LocalStack(StackOptions(workers=1, directory=directory, ecs=LocalEcsOptions(log_dir=directory / "tasks")))
    stack.start(lambda line: None)
    try:
        yield {**stack.environ, "PYTHONPATH": str(IMPORT_ROOT)}
    finally:
        stack.stop()


def _start(environ: dict[str, str], name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _run(environ: dict[str, str], name: str, *arguments: str) -> str:
    process = _start(environ, name, *arguments)
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


def test_words_are_counted_in_containers(environ: dict[str, str], tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("the queue and the ledger " * (number + 1))

    output = _run(environ, "map_reduce.py", *map(str, sorted(tmp_path.iterdir())))

    assert output.splitlines()[0].split() == ["12", "the"]
    assert {tuple(line.split()) for line in output.splitlines()[1:]} == {("6", "queue"), ("6", "and"), ("6", "ledger")}


def test_a_service_that_is_killed_runs_each_order_once(environ: dict[str, str], tmp_path: Path) -> None:
    orders, done, ran = tmp_path / "orders.jsonl", tmp_path / "done.jsonl", tmp_path / "ran"
    ran.mkdir()
    command = ["sh", "-c", f'echo ran >> "{ran}/$0"; sleep 1']
    lines = [json.dumps({"order": str(number), "command": [*command, str(number)]}) for number in range(5)]
    orders.write_text("\n".join(lines))

    service = _start(environ, "async_service.py", str(orders), str(done))
    wait_until(lambda: len(os.listdir(ran)) >= 2, "two containers have started", TIMEOUT)
    service.send_signal(signal.SIGKILL)
    service.communicate(timeout=TIMEOUT)
    _run(environ, "async_service.py", str(orders), str(done))

    assert {path.name: path.read_text() for path in ran.iterdir()} == {str(number): "ran\n" for number in range(5)}
    outcomes = [json.loads(line) for line in done.read_text().splitlines()]
    assert sorted((one["order"], one["state"]) for one in outcomes) == [(str(n), "SUCCESS") for n in range(5)]


def test_functions_run_in_containers(environ: dict[str, str]) -> None:
    output = _run(environ, "functions.py", "3").splitlines()

    assert output[0].startswith("pi is about 3.1")
    assert output[1] == "a call without points raised ValueError: expected points to draw, found 0"


@pytest.mark.parametrize("name", ["async_service.py", "functions.py", "map_reduce.py"])
def test_a_program_without_arguments_says_how_it_is_called(environ: dict[str, str], name: str) -> None:
    process = _start(environ, name)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert f"python examples/{name} " in output
    assert "Traceback" not in output
