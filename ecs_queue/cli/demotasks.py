"""What the demo submits, and how each of it must end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_GREETING = "grüße 世界 🚀"
_BIG = 6000


@dataclass(frozen=True)
class DemoTask:
    """One request. `shown` is its command as the tables show it; `is_stopped`: the demo stops it while it runs."""

    id: str
    command: tuple[str, ...]
    shown: str
    state: str
    exit_code: int | None = 0
    attempts: int = 1
    executor_config: Mapping[str, Any] = field(default_factory=dict)
    is_stopped: bool = False

    def line(self) -> dict[str, Any]:
        """As a task line."""
        return {"id": self.id, "command": list(self.command), "executor_config": dict(self.executor_config) or None}

    def ended_well(self, line: Mapping[str, Any]) -> bool:
        """Whether a result line says what it must say."""
        return (line["state"], line["exit_code"], line["attempts"]) == (self.state, self.exit_code, self.attempts)


def demo_tasks(number: int, max_attempts: int) -> list[DemoTask]:
    """A mix of `number` requests, every kind in turn."""
    return [_KINDS[position % len(_KINDS)](position + 1, max_attempts) for position in range(number)]


def _success(number: int, _: int) -> DemoTask:
    command = ("echo", f"hello from task {number}")
    return DemoTask(f"hello-{number}", command, shlex.join(command), "SUCCESS")


def _failure(number: int, _: int) -> DemoTask:
    command = ("sh", "-c", "exit 3")
    return DemoTask(f"exit3-{number}", command, shlex.join(command), "FAILED", 3)


def _missing(number: int, max_attempts: int) -> DemoTask:
    return DemoTask(f"missing-{number}", ("/no/such/program",), "/no/such/program", "REMOVED", None, max_attempts)


def _stopped(number: int, _: int) -> DemoTask:
    return DemoTask(f"stopped-{number}", ("sleep", "60"), "sleep 60", "REVOKED", 143, is_stopped=True)


def _unicode(number: int, _: int) -> DemoTask:
    command = ("sh", "-c", f'test "$1" = "{_GREETING}"', "sh", _GREETING)
    return DemoTask(f"unicode-{number}", command, f'test "$1" = "{_GREETING}"', "SUCCESS")


def _big(number: int, _: int) -> DemoTask:
    command = ("sh", "-c", f"test ${{#BIG}} -eq {_BIG}")
    environment = {"environment": [{"name": "BIG", "value": "x" * _BIG}]}
    return DemoTask(f"bigenv-{number}", command, command[-1], "SUCCESS", executor_config=environment)


def _sleep(number: int, _: int) -> DemoTask:
    seconds = f"{0.5 + number % 5 * 0.5:g}"
    return DemoTask(f"work-{number}", ("sleep", seconds), f"sleep {seconds}", "SUCCESS")


_KINDS = (_success, _failure, _missing, _stopped, _unicode, _big, _sleep, _sleep)
