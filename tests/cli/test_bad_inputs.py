"""200 generated bad inputs: no command ends with 70, and no status denies a submission that was made."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.cli.main import cli
from ecs_queue.cli.ui.exit_status import EXIT_BUG, EXIT_USAGE
from ecs_queue.client.client import EcsQueue
from tests.cli.conftest import open_bad_stream

_NUMBER_OF_INPUTS = 200
_TEXTS = ["", " ", "\x00", "ü\u2028", "x" * 5000, "-1", "nan", "inf", "1e400", "1h", "%s", "{}", "[]", "null", "\udcff"]
_TEXTS += [
    "../../etc/passwd",
    "/dev/full",
    "/proc/self/mem",
    "/",
    "true",
    "9" * 400,
    "a\nb",
    "arn:aws:ecs:x",
    "--",
    "{",
]
_VALUES: list[Any] = [None, True, -1, 0, 10**30, 1e308, 1.5, "", "1h", "soon", [], {}, [[]], {"a": 1}, "x" * 200_000]
_FIELDS = ("id", "command", "queue", "executor_config", "priority", "expires_in", "time_limit", "relaunch", "other")
_OPTIONS = (
    "queue",
    "id",
    "priority",
    "executor-config",
    "expires-in",
    "time-limit",
    "relaunch",
    "timeout",
    "output",
    "env",
    "cpu",
)
_QUERIES = ["ssl_cert_reqs=CERT_REQUIRED", "socket_timeout=5", "health_check_interval=25", "db=1", "protocol=3", "x=y"]
_QUERIES += [
    "max_connections=2",
    "socket_timeout=soon",
    "ssl_cert_reqs=none",
    "retry_on_timeout=maybe",
    "a",
    "=",
    "%zz",
]
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status", "VALUE"),
    ("tasks", "--since", "VALUE"),
    ("tasks", "--limit", "VALUE"),
    ("tasks", "--queue", "VALUE", "--reason", "VALUE"),
    ("stop", "VALUE"),
    ("purge", "VALUE", "--yes"),
    ("retry", "VALUE", "--env", "VALUE"),
    ("wait", "VALUE", "--timeout", "1"),
    ("stop", "--queue", "VALUE", "--yes"),
    ("dead", "show", "VALUE"),
    ("dead", "list", "--older-than", "VALUE"),
    ("dead", "requeue", "--reason", "VALUE"),
    ("dead", "purge", "VALUE", "--yes"),
    ("journal", "show", "VALUE"),
    ("journal", "tail", "-n", "VALUE"),
    ("journal", "export", "--since", "VALUE", "-o", "VALUE"),
    ("journal", "import", "VALUE"),
    ("replay", "VALUE", "--explain"),
    ("replay", "VALUE", "--submit", "--set", "VALUE"),
    ("replay", "VALUE", "--local", "--env", "VALUE"),
    ("queues", "pause", "VALUE"),
    ("config", "--config", "VALUE"),
    ("worker", "--queues", "VALUE", "--concurrency", "VALUE"),
    ("doctor", "--canary-timeout", "VALUE"),
)


class BadInput:
    """One command line with its stdout and, for `submit --file`, the bytes of the file."""

    def __init__(self, seed: int, folder: Path, url: str) -> None:
        draw = random.Random(seed)
        self._draw, self._folder, self._url = draw, folder, url
        self.stdout = draw.choice(["full", "closed", "pipe", "good", "good"])
        self.arguments = draw.choice([self._submit, self._submit_file, self._other, self._other, self._with_url])()

    def _submit(self) -> list[str]:
        options = [
            f"--{self._draw.choice(_OPTIONS)}={self._draw.choice(_TEXTS)}" for _ in range(self._draw.randint(0, 1))
        ]
        return ["submit", *options, "--", self._draw.choice(["true", *_TEXTS])]

    def _submit_file(self) -> list[str]:
        lines = [json.dumps(self._task()) for _ in range(3)]
        data = "\n".join(lines).encode()
        if self._draw.random() < 0.2:
            data = self._draw.choice([b"\xff\xfe", b"", b"[" * 9999, b"{}", b"5", data[:-1], b"\0", data + b"\n\xc3"])
        file = self._folder / "tasks.jsonl"
        file.write_bytes(data)
        return ["submit", "--file", str(file)]

    def _task(self) -> dict[str, Any]:
        wrong = {self._draw.choice(_FIELDS): self._draw.choice(_VALUES)} if self._draw.random() < 0.3 else {}
        return {"command": ["true"], **wrong}

    def _other(self) -> list[str]:
        shape = self._draw.choice(_COMMANDS)
        return [self._draw.choice(_TEXTS) if part == "VALUE" else part for part in shape]

    def _with_url(self) -> list[str]:
        query = self._draw.choice(_QUERIES)
        option = self._draw.choice(["--broker-url", "--ledger-url"])
        base = self._draw.choice([self._url, "redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "redis://["])
        command = self._draw.choice([["status"], ["submit", "--", "true"], ["workers"], ["config"]])
        return [command[0], option, f"{base}?{query}", *command[1:]]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, no_worker_environ: Mapping[str, str], tmp_path: Path) -> Mapping[str, str]:
    for name, value in no_worker_environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__SOCKET_TIMEOUT_SECONDS", "2")
    monkeypatch.chdir(tmp_path)
    return no_worker_environ


def _run(monkeypatch: pytest.MonkeyPatch, bad: BadInput) -> tuple[int, str]:
    said = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", said)
        good = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        patch.setattr(sys, "stdout", good if bad.stdout == "good" else open_bad_stream(bad.stdout))
        with pytest.raises(SystemExit) as exited:
            cli.main(bad.arguments)
        with suppress(OSError, ValueError):
            sys.stdout.close()
    return int(exited.value.code or 0), said.getvalue()


def test_no_command_ends_with_70_and_no_status_denies_a_submission(
    monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], tmp_path: Path
) -> None:
    statuses: dict[int, int] = {}
    bugs: list[str] = []
    url = environ["AIRFLOW__ECS_QUEUE__BROKER_URL"]
    with EcsQueue.from_config(owner="") as client:

        def count() -> int:
            return sum(sum(states.values()) for states in client.ledger.count_by_state().values())

        for seed in range(_NUMBER_OF_INPUTS):
            bad = BadInput(seed, tmp_path, url)
            before = count()
            status, said = _run(monkeypatch, bad)
            shown = f"seed {seed}: {bad.arguments!r:.300} with stdout {bad.stdout} ended with {status}: {said[:600]}"
            if status == EXIT_BUG or "Traceback" in said:
                bugs.append(shown)
            if count() != before and bad.arguments[0] == "submit":
                assert status != EXIT_USAGE, shown
            statuses[status] = statuses.get(status, 0) + 1
    assert not bugs, "\n".join(bugs)
    assert {0, EXIT_USAGE, 74} <= statuses.keys(), statuses
