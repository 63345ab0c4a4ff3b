"""`top`: what it shows once, live, and how it ends."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest

from ecs_queue.cli.top import Keys, ScreenReader
from ecs_queue.client.client import EcsQueue
from ecs_queue.runner.alarm import Alarm
from tests.cli.conftest import Invoke
from tests.cli.terminal import plain
from tests.processes import CLI_COMMAND
from tests.worker_info import make_worker_info

pytestmark = pytest.mark.server


@pytest.fixture
def client(no_worker_environ: Mapping[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        queue.submit(["true"], id="waits", queue="etl")
        queue.stop(queue.submit(["true"], id="ended", labels={"team": "data"}).id, by="ann")
        for name, health in (("w1", "ok"), ("w2", "the broker fails")):
            numbers = {"concurrency": 4, "launches_in_progress": 1, "launched_total": 12, "ended_total": 9}
            worker = make_worker_info(name, queues=["etl"], health=health, launch_rate=2.5, **numbers)
            queue.ledger.heartbeat(worker, 300)
        yield queue


def test_without_a_terminal_it_is_shown_once(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    done = invoke("top", env=no_worker_environ)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert "ecs-queue: 2 workers, 5.0 launches/s" in done.stdout
    assert ["etl", "2", "1", "1", "0", "-", "active", "none"] in lines
    assert ["w1", "1/4", "12", "9", "2.5/s", "ok"] in lines
    assert done.stdout.index("w2 ") < done.stdout.index("w1 "), "what is not healthy stands first"
    assert "team=data" in done.stdout
    assert "stopped by ann" in done.stdout


def test_ends_a_second_count_from_the_last_look(client: EcsQueue) -> None:
    reader = ScreenReader(client)

    def ends() -> dict[str, str]:
        headers, rows = reader.read().tables[0]
        return {row[0]: row[headers.index("ends")] for row in rows}

    assert ends()["etl"] == "-"
    client.stop("waits", by="ann")
    assert float(ends()["etl"].removesuffix("/s")) > 0


@pytest.mark.parametrize("way", ["q", "Ctrl-C"])
def test_on_a_terminal_it_is_live_until_q_or_ctrl_c(
    way: str, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    ours, theirs = pty.openpty()
    environ = {**os.environ, **no_worker_environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    command = [*CLI_COMMAND, "top", "--interval", "0.2"]
    process = subprocess.Popen(command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = _read_until(ours, "q ends")
    assert "w2" in shown
    assert "ended" in shown
    if way == "q":
        os.write(ours, b"q")
    else:
        process.send_signal(signal.SIGINT)
    status = process.wait(60)
    os.close(ours)
    assert status == 0, shown


def test_another_key_and_no_terminal_only_wait() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    with closing(Alarm()) as interruption:
        assert not Keys(read_end).is_end_pressed(0.01, interruption)
        assert not Keys(None).is_end_pressed(0.01, interruption)
        os.write(write_end, b"xq")
        assert Keys(read_end).is_end_pressed(60, interruption)
        os.close(write_end)
        assert Keys(read_end).is_end_pressed(60, interruption), "stdin has ended"
    os.close(read_end)


def test_what_interrupts_the_wait_ends_it_though_it_came_before() -> None:
    with closing(Alarm()) as interruption:
        interruption.set()
        assert not Keys(None).is_end_pressed(3600, interruption)


def _read_until(number: int, wanted: str) -> str:
    written, deadline = b"", time.monotonic() + 60
    while wanted not in plain(written.decode(errors="replace")) and time.monotonic() < deadline:
        if select.select([number], [], [], 1)[0]:
            written += os.read(number, 65536)
    return plain(written.decode(errors="replace"))
