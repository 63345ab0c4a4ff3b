"""`purge`: ends what waits in a queue, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.protocol.states import State
from tests.cli.conftest import Invoke, json_lines, task_file


def submit(invoke: Invoke, environ: Mapping[str, str], folder: Path, *names: str, queue: str = "etl") -> None:
    file = task_file(folder, *({"id": name, "command": ["true"], "queue": queue} for name in names))
    assert invoke("submit", "--file", str(file), env=environ).exit_code == 0


def states(environ: Mapping[str, str], *names: str) -> list[str]:
    with EcsQueue.from_config(environ=environ, owner="") as client:
        return [client.status(name).state.value for name in names]


def test_what_waits_is_counted_first_and_then_revoked(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    submit(invoke, no_worker_environ, tmp_path, "a", "b")
    submit(invoke, no_worker_environ, tmp_path, "other", queue="default")
    arguments = ("--delay", "1h", "--queue", "etl", "--id", "later")
    assert invoke("submit", *arguments, "--", "true", env=no_worker_environ).exit_code == 0
    counted = invoke("purge", "ETL", env=no_worker_environ)
    assert (counted.exit_code, counted.stdout) == (0, "")
    assert "3 waiting requests of etl would be revoked" in counted.stderr
    assert "dry run: nothing was done, --yes does it" in counted.stderr
    assert states(no_worker_environ, "a", "b", "later") == ["QUEUED"] * 3
    done = invoke("purge", "etl", "--yes", "--json", env=no_worker_environ)
    assert done.exit_code == 0
    lines = sorted(json_lines(done.stdout), key=lambda line: str(line["id"]))
    assert lines == [{"id": name, "state": "REVOKED", "result": "revoked"} for name in ("a", "b", "later")]
    assert done.stderr == "3 of 3 were revoked\n"
    assert states(no_worker_environ, "a", "b", "later", "other") == ["REVOKED"] * 3 + ["QUEUED"]
    assert "0 of 0" in invoke("purge", "etl", "--yes", env=no_worker_environ).stderr


def test_owners_get_the_results_of_what_is_purged(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    with EcsQueue.from_config(environ=no_worker_environ) as client:
        handle = client.submit(["true"], queue="etl")
        assert invoke("purge", "etl", "--yes", "--as", "ann", env=no_worker_environ).exit_code == 0
        result = handle.result(timeout=60)
    assert (result.state, result.reason) == ("REVOKED", "stopped by ann")


def test_what_is_launched_between_the_list_and_the_end_goes_on(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker claims one of them after `purge` has listed it."""
    submit(invoke, no_worker_environ, tmp_path, "a", "b")
    purge_requests = EcsQueue.purge_requests

    def launch_first(self: EcsQueue, ids: list[str]) -> object:
        claimed = self.ledger.claim("a", ClaimRequest(claim="c", worker="w", args="{}", target="here"))
        assert claimed.record is not None
        return purge_requests(self, ids)

    monkeypatch.setattr(EcsQueue, "purge_requests", launch_first)
    done = invoke("purge", "etl", "--yes", env=no_worker_environ)
    assert done.stderr == "1 of 2 were revoked; 1 did not wait any more, and nothing was done to it\n"
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        assert client.status("a").stop_requested_by == ""
        assert client.status("a").state is State.LAUNCHING
