"""`replay ID --local`: signals reach the command."""

from __future__ import annotations

import signal
import threading

import pytest

from ecs_queue.cli.replay_local import LocalRun, run_locally


@pytest.mark.timeout(20)
def test_a_signal_that_does_not_interrupt_the_wait_is_passed_on_to_the_command() -> None:
    other = threading.Timer(0.3, signal.raise_signal, [signal.SIGTERM])  # it comes in that thread
    other.start()
    assert run_locally(LocalRun("one", ["sleep", "60"], {}), as_json=False) == 128 + signal.SIGTERM
    other.join()
