"""stdout, stderr and --output that are closed or full: the status and the sentence say what was done before."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.cli.main import cli
from ecs_queue.cli.ui import submitter
from ecs_queue.cli.ui.exit_status import EXIT_OUTPUT, EXIT_SUBMITTED, EXIT_USAGE
from ecs_queue.cli.ui.output import discard_output
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import IdConflict, LedgerUnavailable
from tests.cli.conftest import PYTHON, Invoke, open_bad_stream, task_file

#: A command's exit status, and what it said on stderr.
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, no_worker_environ: Mapping[str, str]) -> Run:
    """`run("full", "submit", ...)`: a command in this process with a stdout that is full, closed or a closed pipe."""
    for name, value in no_worker_environ.items():
        monkeypatch.setenv(name, value)

    def run_command(stdout: str, *arguments: str) -> tuple[int, str]:
        said = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", said)
            patch.setattr(sys, "stdout", open_bad_stream(stdout))
            with pytest.raises(SystemExit) as exited:
                cli.main(list(arguments))
            with suppress(OSError):
                sys.stdout.close()
        return int(exited.value.code or 0), said.getvalue()

    return run_command


def queued_ids() -> list[str]:
    with EcsQueue.from_config(owner="") as client:
        return sorted(record.id for record in client.ledger.list_records("", 1000)[0])


@pytest.mark.parametrize("stdout", ["full", "closed", "pipe"])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_request_whose_id_cannot_be_printed_is_reported_as_submitted(
    run: Run, stdout: str, as_json: Sequence[str]
) -> None:
    status, said = run(stdout, "submit", *as_json, "--id", "mine", "--", "true")
    assert (status, queued_ids()) == (EXIT_OUTPUT, ["mine"])
    assert said.endswith("; the request goes on: ecs-queue status mine, ecs-queue stop mine\n")
    assert "Traceback" not in said


@pytest.mark.parametrize("stdout", ["full", "closed", "pipe"])
def test_a_file_whose_ids_cannot_be_printed_is_reported_as_submitted(run: Run, stdout: str, tmp_path: Path) -> None:
    file = task_file(tmp_path, *({"id": name, "command": ["true"]} for name in "abc"))
    status, said = run(stdout, "submit", "--file", str(file))
    assert (status, queued_ids()) == (EXIT_OUTPUT, ["a", "b", "c"])
    assert "the 3 submitted requests go on" in said


@pytest.mark.parametrize("output", [["--output", "/dev/full"], []], ids=["file", "stdout"])
def test_results_that_cannot_be_written_are_reported_with_what_goes_on(
    run: Run, invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path, output: Sequence[str]
) -> None:
    assert invoke("stop", "--ahead", "a", env=no_worker_environ).exit_code == 0  # it ends as soon as it is submitted
    file = task_file(tmp_path, {"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]})
    status, said = run("full", "submit", "--file", str(file), "--wait", *output)
    assert status == EXIT_OUTPUT
    assert "No space left on device" in said
    assert "the 2 submitted requests go on" in said
    assert queued_ids() == ["b"]  # which goes on; `a` was revoked


@pytest.mark.parametrize("arguments", [["--", "true"], ["--wait", "--", "true"]])
def test_nothing_is_submitted_and_said_so_when_the_input_is_bad_whatever_stdout_is(
    run: Run, arguments: Sequence[str]
) -> None:
    status, _ = run("full", "submit", "--id", "two words", *arguments)
    assert (status, queued_ids()) == (EXIT_USAGE, [])


@pytest.mark.parametrize("stdout", ["full", "closed"])
@pytest.mark.parametrize(
    "command",
    [["status"], ["status", "--json"], ["queues"], ["config"], ["config", "--json"], ["tasks", "--counts", "--json"]],
)
def test_an_answer_that_cannot_be_written_is_no_bug_and_no_success(
    run: Run, invoke: Invoke, no_worker_environ: Mapping[str, str], stdout: str, command: Sequence[str]
) -> None:
    assert invoke("submit", "--", "true", env=no_worker_environ).exit_code == 0
    status, said = run(stdout, *command)
    assert status == EXIT_OUTPUT
    assert said.startswith("ecs-queue: the answer cannot be written to stdout: ")
    assert said.count("\n") == 1


def test_a_full_stderr_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_bad_stream("full") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        with pytest.raises(SystemExit) as exited:
            cli.main(["replay", "x", "--offline"])
        discard_output(stderr)
    assert exited.value.code == EXIT_USAGE


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">&-", "> /dev/full", "2>&-", "2> /dev/full", ">&- 2>&- <&-", "<&-"])
def test_a_whole_process_ends_with_its_own_status(redirection: str) -> None:
    done = subprocess.run(["sh", "-c", f'"{PYTHON}" -m ecs_queue config {redirection}'], capture_output=True, text=True)
    assert done.returncode == (EXIT_OUTPUT if ">" in redirection.replace("2>", "") else 0)
    assert "Exception ignored" not in done.stderr


class RejectingQueue:
    """A queue that accepts all requests but some; like the client, it rejects after the others are queued."""

    def __init__(self, *rejected: str, fails_after: int | None = None) -> None:
        self.rejected, self.fails_after = set(rejected), fails_after
        self.queued: set[str] = set()

    def send(self, prepared_requests: Sequence[Any]) -> list[Any]:
        if self.fails_after is not None and len(self.queued) >= self.fails_after:
            raise LedgerUnavailable("the ledger is unavailable")
        self.queued |= {item.id for item in prepared_requests} - self.rejected
        for item in prepared_requests:
            if item.id in self.rejected:
                raise IdConflict(f"another request has the id {item.id}")
        return list(prepared_requests)


class Named:
    def __init__(self, name: str) -> None:
        self.id = name
        self.request = self


def test_a_rejection_in_a_batch_leaves_exactly_the_queued_ones_as_submitted() -> None:
    queue: Any = RejectingQueue("b")
    started = submitter.Submitter(queue)
    with pytest.raises(IdConflict, match="b"):
        started.submit([Named(name) for name in "abc"])  # type: ignore[misc]
    assert [handle.id for handle in started.handles] == ["a", "c"]
    assert started.ambiguous_ids == []
    alone: Any = RejectingQueue("b")
    started = submitter.Submitter(alone)
    with pytest.raises(IdConflict):
        started.submit([Named("b")])  # type: ignore[list-item]
    assert not started.may_have_submitted


def test_an_outage_after_a_part_was_submitted_has_a_status_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(submitter, "_OUTAGE_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setattr(submitter, "_BATCH_SIZE", 2)
    send = EcsQueue.send
    sent: list[Sequence[Any]] = []

    def send_once(self: EcsQueue, prepared_requests: Sequence[Any]) -> Any:
        if sent:
            raise LedgerUnavailable("the ledger is unavailable")
        sent.append(prepared_requests)
        return send(self, prepared_requests)

    monkeypatch.setattr(EcsQueue, "send", send_once)
    file = task_file(tmp_path, *({"id": name, "command": ["true"]} for name in "abcd"))
    status, said = run("full", "submit", "--file", str(file))
    assert (status, queued_ids()) == (EXIT_SUBMITTED, ["a", "b"])
    assert "2 of 4 requests were submitted, and it is unknown whether the next 2 were" in said
