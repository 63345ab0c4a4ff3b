"""A shell completes commands, ids of requests and names of queues."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ecs_queue.client.client import EcsQueue
from tests.cli.conftest import Invoke


def complete(invoke: Invoke, line: str, environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the candidates for the last word of the line, as bash gets them, and stderr."""
    words = line.split(" ")
    asked = {"_ECS_QUEUE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = invoke(env={**environ, **asked})
    assert done.exit_code == 0, done.output
    return [each.partition(",")[2] for each in done.stdout.splitlines() if each], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str, invoke: Invoke) -> None:
    done = invoke(env={"_ECS_QUEUE_COMPLETE": f"{shell}_source"})
    assert done.exit_code == 0
    assert f"_ECS_QUEUE_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize("command", ["status", "logs", "wait", "stop"])
def test_ids_are_completed(command: str, invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        for name in ("nightly-1", "nightly-2", "hourly"):
            queue.submit(["true"], id=name)
    found, said = complete(invoke, f"ecs-queue {command} nig", no_worker_environ)
    assert (sorted(found), said) == (["nightly-1", "nightly-2"], "")


@pytest.mark.parametrize("command", ["submit --queue", "tasks --queue", "queues pause", "queues resume"])
def test_queues_are_completed(command: str, invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        queue.submit(["true"], queue="reports")
    assert complete(invoke, f"ecs-queue {command} re", no_worker_environ) == (["reports"], "")


def test_without_a_server_nothing_is_offered_and_nothing_is_said(invoke: Invoke) -> None:
    environ = {"AIRFLOW__ECS_QUEUE__BROKER_URL": "redis://127.0.0.1:1/0"}
    assert complete(invoke, "ecs-queue status a", environ) == ([], "")
    assert complete(invoke, "ecs-queue queues pause a", environ) == ([], "")
    assert complete(invoke, "ecs-queue sta", environ) == (["status"], "")
