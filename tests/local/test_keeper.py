"""The keeper kills what its parent left behind, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ecs_queue.local.keeper import Charge, Keeper, read
from tests.local.processes import assert_gone


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], Charge()),
        ([b"+7\n", b"+8\n"], Charge({7, 8})),
        ([b"+7\n", b"-7\n"], Charge()),
        ([b"+7\n", b"-7\n", b"+7\n"], Charge({7})),
        ([b"-9\n", b"+8\n"], Charge({8})),
        ([b">/tmp/a b\n", b">/tmp/c\n", b"</tmp/c\n"], Charge(directories={"/tmp/a b"})),
    ],
)
def test_what_was_watched_and_not_forgotten_is_left(lines: list[bytes], left: Charge) -> None:
    assert read(lines) == left


def test_closing_removes_watched_directories_and_spares_forgotten_ones(tmp_path: Path) -> None:
    watched, spared = tmp_path / "wätched", tmp_path / "spared"
    keeper = Keeper()
    for directory in (watched, spared):
        directory.mkdir()
        (directory / "file").touch()
        keeper.watch_directory(directory)
    keeper.forget_directory(spared)
    keeper.close()
    assert [directory.exists() for directory in (watched, spared)] == [False, True]


def test_closing_kills_watched_groups_with_their_grandchildren_and_spares_forgotten_ones() -> None:
    keeper = Keeper()
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
        keeper.watch(watched.pid)
        keeper.watch(spared.pid)
        keeper.forget(spared.pid)
        keeper.close()
        assert watched.wait(10) == -9
        assert_gone(grandchild)
        assert spared.poll() is None
        os.kill(spared_grandchild, signal.SIGKILL)
        spared.wait(10)


def test_a_keeper_that_was_killed_does_not_disturb_its_parent() -> None:
    keeper = Keeper()
    os.kill(keeper.pid, signal.SIGKILL)
    assert_gone(keeper.pid)
    keeper.watch(keeper.pid)
    keeper.forget(keeper.pid)
    keeper.close()
