"""A signal that ends or stops a command leaves the terminal as it was: with cursor, echo and the shell's screen."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ecs_queue.cli.ui.given_back_terminal import LINES, give_back_terminal
from ecs_queue.client.client import EcsQueue
from tests.cli.conftest import task_file
from tests.cli.terminal import open_terminal, plain
from tests.processes import IMPORT_ROOT

_HIDE, _SHOW, _ENTER, _LEAVE = b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?1049h", b"\x1b[?1049l"
_DEMO = """
import time
from ecs_queue.cli.demo_tasks import demo_tasks
from ecs_queue.cli.demo_view import open_demo_view
with open_demo_view(demo_tasks(3, 3)):
    print("drawn", flush=True)
    time.sleep(60)
"""


def assert_given_back(written: bytes) -> None:
    assert written.count(_HIDE) == written.count(_SHOW) > 0, written
    assert written.rindex(_SHOW) > written.rindex(_HIDE)
    assert written.count(_ENTER) == written.count(_LEAVE)


def width_of(written: bytes) -> int:
    return max(map(len, plain(written.decode()).splitlines()))


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("arguments", "drawn"),
    [
        (["top"], b"q ends"),
        (["wait", "waits"], b"Ctrl-C only ends waiting"),
        (["submit", "--file", "FILE", "--wait"], b"ended"),
    ],
)
def test_a_signal_that_ends_a_command_gives_the_terminal_back(
    arguments: list[str], drawn: bytes, number: signal.Signals, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    file = task_file(tmp_path, {"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]})
    environ = {**os.environ, **no_worker_environ}
    with EcsQueue.from_config(environ=environ, owner="") as client:
        client.submit(["true"], id="waits")
    arguments = [argument.replace("FILE", str(file)) for argument in arguments]
    with open_terminal(*arguments, environ=environ) as terminal:
        modes = terminal.modes
        terminal.read_until(drawn)
        terminal.process.send_signal(number)
        assert terminal.read_to_end() == -number
        assert_given_back(terminal.written)
        assert terminal.modes == modes


def test_so_does_the_demo() -> None:
    command = (sys.executable, "-c", _DEMO)
    with open_terminal(environ={**os.environ, "PYTHONPATH": str(IMPORT_ROOT)}, command=command) as terminal:
        terminal.read_until(b"drawn")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.read_to_end() == -signal.SIGTERM
        assert_given_back(terminal.written)


@pytest.mark.server
def test_a_stopped_command_gives_the_terminal_back_until_it_goes_on(no_worker_environ: Mapping[str, str]) -> None:
    with open_terminal("top", "--interval", "600", environ={**os.environ, **no_worker_environ}) as terminal:
        modes = terminal.modes
        terminal.read_until(b"q ends")
        drawn_modes = terminal.modes
        terminal.process.send_signal(signal.SIGTSTP)
        os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOWAIT)
        terminal.read_until(_LEAVE)
        assert (terminal.modes == modes, drawn_modes == modes) == (True, False)
        begin = len(terminal.written)
        terminal.process.send_signal(signal.SIGCONT)
        again = terminal.read_until(b"q ends", begin)  # long before the next look
        assert _ENTER in again
        assert terminal.modes == drawn_modes
        os.write(terminal.ours, b"q")
        assert terminal.read_to_end() == 0
        assert_given_back(terminal.written)
        assert terminal.modes == modes


@pytest.mark.server
def test_a_live_view_is_drawn_anew_when_the_terminal_has_another_size(no_worker_environ: Mapping[str, str]) -> None:
    with open_terminal("top", "--interval", "600", environ={**os.environ, **no_worker_environ}) as terminal:
        assert width_of(terminal.read_until(b"q ends")) == 80
        begin = len(terminal.written)
        terminal.resize(120)
        while width_of(drawn := terminal.read_until(b"q ends", begin)) != 120:  # long before the next look
            begin += drawn.rindex(b"q ends") + 1  # it was being drawn
        os.write(terminal.ours, b"q")
        assert terminal.read_to_end() == 0


def test_without_a_terminal_no_signal_is_caught() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)]
    with open(os.devnull, "w") as stream, give_back_terminal(stream, LINES):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)] == before


@pytest.mark.server
def test_what_nohup_ignores_stays_ignored(no_worker_environ: Mapping[str, str]) -> None:
    command = ("sh", "-c", 'trap "" HUP; exec "$0" -m ecs_queue top', sys.executable)
    with open_terminal(environ={**os.environ, **no_worker_environ}, command=command) as terminal:
        terminal.read_until(b"q ends")
        terminal.process.send_signal(signal.SIGHUP)
        os.write(terminal.ours, b"q")
        assert terminal.read_to_end() == 0
