"""Commands as real processes: environment, output, exit codes, stops, and no remaining process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, ProcessRunner
from ecs_queue.local.reaper import MARKER
from tests.local.ecs.checked_client import (
    TIMEOUT_SECONDS,
    command_override,
    make_checked_client,
    run_task,
    wait_for_status,
)
from tests.local.ecs.conftest import StartEcs
from tests.processes import IMPORT_ROOT, assert_process_ended
from tests.wait import wait_until

Ecs = tuple[LocalEcs, Any]


@pytest.fixture
def ecs(start_ecs: StartEcs) -> Ecs:
    return start_ecs(ProcessRunner())


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe into which a task writes what the test waits for."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)  # for writing too, so that a writer's end is no end-of-file
    yield path, reader
    os.close(reader)


def _line(reader: int) -> str:
    assert select.select([reader], [], [], TIMEOUT_SECONDS)[0], "nothing was written"
    return os.read(reader, 4096).decode().strip()


def _code(client: Any, *argv: str) -> int:
    task = wait_for_status(client, run_task(client, *argv))
    code: int = task["containers"][0]["exitCode"]
    return code


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_codes_are_the_process_own_and_128_plus_the_signal(ecs: Ecs, script: str, code: int) -> None:
    assert _code(ecs[1], "sh", "-c", script) == code


def test_stdout_and_stderr_go_to_the_log_of_the_task(start_ecs: StartEcs, tmp_path: Path) -> None:
    server, client = start_ecs(ProcessRunner(), log_dir=tmp_path / "logs")
    arn = run_task(client, "sh", "-c", 'echo out; echo err >&2; printf %s "$1"', "sh", "żółw 🐢")
    wait_for_status(client, arn)
    path = server.log_path(arn)
    assert path == tmp_path / "logs" / f"{arn.rpartition('/')[2]}.log"
    assert path.read_text(encoding="utf-8") == "out\nerr\nżółw 🐢"


def test_a_task_gets_its_environment_and_nothing_of_the_servers_but_path_and_home(
    start_ecs: StartEcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the server's own")
    server, client = start_ecs(ProcessRunner())
    big = "x" * 6000
    arn = run_task(client, overrides=command_override("env", environment={"BIG": big, "HOME": "/elsewhere"}))
    wait_for_status(client, arn)
    found = dict(line.split("=", 1) for line in server.log_path(arn).read_text().splitlines())
    assert os.path.basename(found.pop(MARKER)).startswith("ecs-queue-tasks-")
    assert found.pop("ECS_CONTAINER_METADATA_URI_V4").startswith(f"{server.endpoint_url}/v4/{arn.rpartition('/')[2]}-")
    assert found == {
        "PATH": os.environ["PATH"],
        "HOME": "/elsewhere",
        "BIG": big,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
    }


def test_each_task_has_its_own_directory_that_is_removed_at_its_end(ecs: Ecs) -> None:
    server, client = ecs
    logs = []
    for _ in range(2):
        arn = run_task(client, "sh", "-c", "pwd; touch file; ls")
        wait_for_status(client, arn)
        logs.append(server.log_path(arn).read_text().splitlines())
    assert [listing for _, listing in logs] == ["file", "file"]
    assert logs[0][0] != logs[1][0]
    server.stop()
    assert not any(os.path.exists(directory) for directory, _ in logs)


def test_standard_input_is_empty(ecs: Ecs) -> None:
    assert _code(ecs[1], "cat") == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("no-such-program-here",), 'exec: "no-such-program-here": executable file not found in $PATH'),
        (("/no/such/program",), 'exec: "/no/such/program": stat /no/such/program: no such file or directory'),
        (("/dev/null",), 'exec: "/dev/null": permission denied'),
        (("echo", "a\0b"), "invalid argument"),
        (("",), "no command specified"),
    ],
)
def test_a_program_that_cannot_start_is_a_cannot_start_container_error(
    ecs: Ecs, argv: tuple[str, ...], message: str
) -> None:
    task = wait_for_status(ecs[1], run_task(ecs[1], *argv))
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotStartContainerError: ")
    assert message in task["stoppedReason"]
    assert "startedAt" not in task
    assert "exitCode" not in task["containers"][0]


def test_an_unwritable_log_is_distinguished_from_a_missing_program(start_ecs: StartEcs, tmp_path: Path) -> None:
    _, client = start_ecs(ProcessRunner(), log_dir=tmp_path / "logs")
    (tmp_path / "logs").rmdir()
    task = wait_for_status(client, run_task(client, "true"))
    assert task["stoppedReason"].startswith(
        "CannotStartContainerError: unable to start container process: cannot prepare"
    )


def test_the_sessions_and_temporary_files_of_a_runner_end_with_it(ecs: Ecs, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = (
        f"touch $TMPDIR/left; echo $TMPDIR; setsid sh -c 'echo $$ > {pid}; exec sleep 600' & "
        f"until [ -s {pid} ]; do sleep 0.01; done; kill -9 $$"
    )
    arn = run_task(ecs[1], overrides=command_override("sh", "-c", script, environment={"ECS_QUEUE_RUNNER": "{}"}))
    assert wait_for_status(ecs[1], arn)["containers"][0]["exitCode"] == 137
    assert_process_ended(int(pid.read_text()))
    directory = Path(ecs[0].log_path(arn).read_text().strip())
    wait_until(lambda: not directory.exists(), "the directory of the task that has stopped is removed")


def test_a_stop_sends_sigterm_and_the_program_may_handle_it(ecs: Ecs, fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    arn = run_task(ecs[1], "sh", "-c", f"trap 'exit 5' TERM; echo up > {path}; while :; do sleep 0.05; done")
    assert _line(reader) == "up"
    ecs[1].stop_task(cluster="local", task=arn)
    task = wait_for_status(ecs[1], arn)
    assert task["containers"][0]["exitCode"] == 5
    assert task["stopCode"] == "UserInitiated"


def test_a_program_that_ignores_sigterm_is_killed_after_the_stop_timeout(
    start_ecs: StartEcs, fifo: tuple[Path, int]
) -> None:
    _, client = start_ecs(ProcessRunner(), stop_timeout_seconds=0.2)
    path, reader = fifo
    arn = run_task(client, "sh", "-c", f"trap '' TERM; echo up > {path}; while :; do sleep 0.05; done")
    assert _line(reader) == "up"
    client.stop_task(cluster="local", task=arn)
    task = wait_for_status(client, arn)
    assert task["containers"][0]["exitCode"] == 137
    assert (task["stoppedAt"] - task["stoppingAt"]).total_seconds() >= 0.2


def test_a_stop_that_comes_while_the_process_is_spawned_is_not_lost(ecs: Ecs) -> None:
    for _ in range(5):
        arn = run_task(ecs[1], "sleep", "3600")
        ecs[1].stop_task(cluster="local", task=arn)
        task = wait_for_status(ecs[1], arn)
        assert task["stopCode"] == "UserInitiated"
        assert task["containers"][0].get("exitCode", 143) == 143


def test_a_stop_reaches_the_whole_process_group(ecs: Ecs, fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    arn = run_task(ecs[1], "sh", "-c", f"sleep 3600 & echo $! > {path}; wait")
    grandchild = int(_line(reader))
    ecs[1].stop_task(cluster="local", task=arn)
    wait_for_status(ecs[1], arn)
    assert_process_ended(grandchild)


def test_processes_that_the_main_process_leaves_are_killed(ecs: Ecs, fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    arn = run_task(ecs[1], "sh", "-c", f"sleep 3600 & echo $! > {path}")
    grandchild = int(_line(reader))
    assert wait_for_status(ecs[1], arn)["containers"][0]["exitCode"] == 0
    assert_process_ended(grandchild)


def test_every_process_ends_when_the_server_stops(fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    with LocalEcs() as server:
        client = make_checked_client(server)
        run_task(client, "sh", "-c", f"trap '' TERM; sleep 3600 & echo $$ $! > {path}; wait")
        pids = [int(pid) for pid in _line(reader).split()]
        client.close()
    for pid in pids:
        assert_process_ended(pid)


def test_every_process_ends_when_the_server_is_killed(fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    program = (
        "from ecs_queue.local.ecs import LocalEcsOptions, run_local_ecs\n"
        "run_local_ecs(LocalEcsOptions(), lambda url: print(url, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=IMPORT_ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        server = LocalEcs(LocalEcsOptions(port=int(url.rpartition(":")[2])))  # never started: for its URL only
        client = make_checked_client(server)
        arn = run_task(client, "sh", "-c", f"sleep 3600 & echo $$ $! > {path}; wait")
        pids = [int(pid) for pid in _line(reader).split()]
        wait_for_status(client, arn, "RUNNING")  # its process group is then on the reaper's list
        client.close()
        owner.send_signal(signal.SIGKILL)
        owner.wait(TIMEOUT_SECONDS)
    for pid in pids:
        assert_process_ended(pid)


def test_a_thread_waits_on_systems_without_pidfd(ecs: Ecs, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(pid: int) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "pidfd_open", none)
    assert _code(ecs[1], "sh", "-c", "exit 4") == 4


def test_many_concurrent_short_tasks_end_with_their_own_exit_codes(ecs: Ecs) -> None:
    arns = [run_task(ecs[1], "sh", "-c", f"exit {number}") for number in range(40)]
    assert [wait_for_status(ecs[1], arn)["containers"][0]["exitCode"] for arn in arns] == list(range(40))
