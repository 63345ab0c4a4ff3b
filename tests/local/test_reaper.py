"""The keeper kills what its parent left behind, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ecs_queue.local.reaper import CleanupList, Reaper, read_commands
from tests.local.process_exit import assert_process_ended


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], CleanupList()),
        ([b"+7\n", b"+8\n"], CleanupList({7, 8})),
        ([b"+7\n", b"-7\n"], CleanupList()),
        ([b"+7\n", b"-7\n", b"+7\n"], CleanupList({7})),
        ([b"-9\n", b"+8\n"], CleanupList({8})),
        ([b">/tmp/a b\n", b">/tmp/c\n", b"</tmp/c\n"], CleanupList(directories={"/tmp/a b"})),
    ],
)
def test_what_was_watched_and_not_forgotten_is_left(lines: list[bytes], left: CleanupList) -> None:
    assert read_commands(lines) == left


def test_closing_removes_watched_directories_and_spares_forgotten_ones(tmp_path: Path) -> None:
    watched, spared = tmp_path / "wätched", tmp_path / "spared"
    keeper = Reaper()
    for directory in (watched, spared):
        directory.mkdir()
        (directory / "file").touch()
        keeper.watch_directory(directory)
    keeper.unwatch_directory(spared)
    keeper.close()
    assert [directory.exists() for directory in (watched, spared)] == [False, True]


def test_closing_kills_watched_groups_with_their_grandchildren_and_spares_forgotten_ones() -> None:
    keeper = Reaper()
    script = "sleep 60 & echo $!; wait"
    watched, spared = (
        subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(2)
    )
    with watched, spared:
        assert watched.stdout is not None
        assert spared.stdout is not None
        grandchild = int(watched.stdout.readline())
        spared_grandchild = int(spared.stdout.readline())
        keeper.watch_group(watched.pid)
        keeper.watch_group(spared.pid)
        keeper.unwatch_group(spared.pid)
        keeper.close()
        assert watched.wait(10) == -9
        assert_process_ended(grandchild)
        assert spared.poll() is None
        os.kill(spared_grandchild, signal.SIGKILL)
        spared.wait(10)


def test_a_keeper_that_was_killed_does_not_disturb_its_parent() -> None:
    keeper = Reaper()
    os.kill(keeper.pid, signal.SIGKILL)
    assert_process_ended(keeper.pid)
    keeper.watch_group(keeper.pid)
    keeper.unwatch_group(keeper.pid)
    keeper.close()
