"""The requests of the demo, and how each must end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ecs_queue.payload_repr import PayloadRepr

_GREETING = "grüße 世界 🚀"
_BIG_ENVIRONMENT_BYTES = 6000


@dataclass(frozen=True, repr=False)
class DemoTask(PayloadRepr):
    """One request.

    Attributes:
        display: The command as tables show it.
        state, exit_code, attempts: How the request must end.
        stop_while_running: Whether the demo stops it.
    """

    id: str
    command: tuple[str, ...]
    display: str
    state: str
    exit_code: int | None = 0
    attempts: int = 1
    executor_config: Mapping[str, Any] = field(default_factory=dict)
    stop_while_running: bool = False

    def to_task_line(self) -> dict[str, Any]:
        """Return the task line to submit."""
        return {"id": self.id, "command": list(self.command), "executor_config": dict(self.executor_config) or None}

    def ended_as_expected(self, result_line: Mapping[str, Any]) -> bool:
        """Return whether the request ended as it must."""
        return all(result_line[name] == getattr(self, name) for name in ("state", "exit_code", "attempts"))


def demo_tasks(number: int, max_attempts: int) -> list[DemoTask]:
    """Return `number` requests, every kind in turn."""
    return [_KINDS[position % len(_KINDS)](position + 1, max_attempts) for position in range(number)]


def _success(number: int, _: int) -> DemoTask:
    command = ("echo", f"hello from task {number}")
    return DemoTask(f"hello-{number}", command, shlex.join(command), "SUCCESS")


def _failure(number: int, _: int) -> DemoTask:
    command = ("sh", "-c", "exit 3")
    return DemoTask(f"exit3-{number}", command, shlex.join(command), "FAILED", 3)


def _missing_program(number: int, max_attempts: int) -> DemoTask:
    return DemoTask(f"missing-{number}", ("/no/such/program",), "/no/such/program", "REMOVED", None, max_attempts)


def _stopped(number: int, _: int) -> DemoTask:
    return DemoTask(f"stopped-{number}", ("sleep", "60"), "sleep 60", "REVOKED", 143, stop_while_running=True)


def _unicode(number: int, _: int) -> DemoTask:
    command = ("sh", "-c", f'test "$1" = "{_GREETING}"', "sh", _GREETING)
    return DemoTask(f"unicode-{number}", command, f'test "$1" = "{_GREETING}"', "SUCCESS")


def _big_environment(number: int, _: int) -> DemoTask:
    command = ("sh", "-c", f"test ${{#BIG}} -eq {_BIG_ENVIRONMENT_BYTES}")
    environment = {"environment": [{"name": "BIG", "value": "x" * _BIG_ENVIRONMENT_BYTES}]}
    return DemoTask(f"bigenv-{number}", command, command[-1], "SUCCESS", executor_config=environment)


def _sleep(number: int, _: int) -> DemoTask:
    seconds = f"{0.5 + number % 5 * 0.5:g}"
    return DemoTask(f"work-{number}", ("sleep", seconds), f"sleep {seconds}", "SUCCESS")


_KINDS = (_success, _failure, _missing_program, _stopped, _unicode, _big_environment, _sleep, _sleep)
