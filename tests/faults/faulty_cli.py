"""`python -m tests.faults.faulty_cli HOW ...`: the command line of ecs-queue in a process that something is wrong with.

HOW: `crash-on-decode` or `kill-on-run-task`: it dies of SIGSEGV while it reads, or of SIGKILL (as by the kernel's OOM
killer) while it launches, a request whose id begins with `poison`; `clock+600`, `clock-600`: its wall clock is off
by that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any


def _crash_when_decoding() -> None:
    from ecs_queue.messages import envelope
    from ecs_queue.messages.keyring import NO_KEYS, Keyring

    original = envelope.decode_request

    def decode(body: bytes, keyring: Keyring = NO_KEYS) -> envelope.TaskRequest:
        request = original(body, keyring)
        if request.id.startswith("poison"):
            ctypes.string_at(0)  # a segmentation fault
        return request

    envelope.decode_request = decode


def _kill_when_calling() -> None:
    from ecs_queue.ecs.gateway import BotoEcsGateway

    original = BotoEcsGateway.run_task

    def run_task(self: BotoEcsGateway, *arguments: Any, client_token: str, **named: Any) -> Any:
        if client_token.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # not one more step
        return original(self, *arguments, client_token=client_token, **named)

    BotoEcsGateway.run_task = run_task  # type: ignore[method-assign]


def _shift_clock(seconds: float) -> None:
    """Before anything else is imported: some modules keep a name for `time.time` of their own."""
    right = time.time
    time.time = lambda: right() + seconds


def _main(fault: str, arguments: list[str]) -> None:
    if fault == "crash-on-decode":
        _crash_when_decoding()
    elif fault == "kill-on-run-task":
        _kill_when_calling()
    else:
        _shift_clock(float(fault.removeprefix("clock")))
    from ecs_queue.cli.main import main

    sys.argv = ["ecs-queue", *arguments]
    main()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
