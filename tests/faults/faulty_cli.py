"""`python -m tests.faults.faulty_cli FAULT ...`: the command line of ecs-queue in a process with a fault.

FAULT is one of:

- `crash-on-decode`: the process dies of SIGSEGV while it decodes a request whose id begins with `poison`.
- `kill-on-run-task`: the process dies of SIGKILL, as by the OOM killer, while it launches such a request.
- `clock+600`, `clock-600`: the wall clock is that many seconds off.
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
    from ecs_queue.messages.request import TaskRequest

    original = envelope.decode_request

    def decode(body: bytes, keyring: Keyring = NO_KEYS) -> TaskRequest:
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
            time.sleep(60)  # take no further step
        return original(self, *arguments, client_token=client_token, **named)

    BotoEcsGateway.run_task = run_task  # type: ignore[method-assign]


def _shift_clock(seconds: float) -> None:
    """Replace `time.time` before other imports: some modules keep a reference to it."""
    original = time.time
    time.time = lambda: original() + seconds


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
