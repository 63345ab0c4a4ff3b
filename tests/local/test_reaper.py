"""The reaper cleans up what is on its list, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ecs_queue.local.reaper import MARKER, CleanupList, Reaper, _find_processes, read_commands
from tests.processes import IMPORT_ROOT, assert_process_ended
from tests.wait import wait_until


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], CleanupList()),
        ([b"+7\n", b"+8\n"], CleanupList({7, 8})),
        ([b"+7\n", b"-7\n"], CleanupList()),
        ([b"+7\n", b"-7\n", b"+7\n"], CleanupList({7})),
        ([b"-9\n", b"+8\n"], CleanupList({8})),
        ([b">/tmp/a b\n", b">/tmp/c\n", b"</tmp/c\n"], CleanupList(directories={"/tmp/a b"})),
        ([b"+7\n", b".\n"], CleanupList({7}, is_orderly=True)),
    ],
)
def test_watched_groups_and_directories_are_on_the_list(lines: list[bytes], left: CleanupList) -> None:
    assert read_commands(lines) == left


def test_closing_removes_watched_directories_only(tmp_path: Path) -> None:
    watched, spared = tmp_path / "wätched", tmp_path / "spared"
    reaper = Reaper()
    for directory in (watched, spared):
        directory.mkdir()
        (directory / "file").touch()
        reaper.watch_directory(directory)
    reaper.unwatch_directory(spared)
    reaper.close()
    assert [directory.exists() for directory in (watched, spared)] == [False, True]


def test_closing_kills_watched_groups_with_their_grandchildren_only() -> None:
    reaper = Reaper()
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
        reaper.watch_group(watched.pid)
        reaper.watch_group(spared.pid)
        reaper.unwatch_group(spared.pid)
        reaper.close()
        assert watched.wait(10) == -9
        assert_process_ended(grandchild)
        assert spared.poll() is None
        os.kill(spared_grandchild, signal.SIGKILL)
        spared.wait(10)


def test_a_killed_reaper_does_not_disturb_its_parent() -> None:
    reaper = Reaper()
    os.kill(reaper.pid, signal.SIGKILL)
    assert_process_ended(reaper.pid)
    reaper.watch_group(reaper.pid)
    reaper.unwatch_group(reaper.pid)
    reaper.close()


@pytest.mark.parametrize("moment", ["subprocess.Popen", "ecs_queue.local.reaper.Reaper.watch_group"])
def test_a_child_of_a_parent_that_is_killed_before_its_group_is_known_is_killed(tmp_path: Path, moment: str) -> None:
    code = f"""
import os, signal, subprocess
from unittest import mock
from ecs_queue.local.reaper import Reaper
reaper, popen = Reaper({str(tmp_path)!r}), subprocess.Popen
def die(*arguments, **options):
    child = popen(*arguments, **options) if options else None
    os.kill(os.getpid(), signal.SIGKILL)
with mock.patch({moment!r}, die):
    reaper.spawn(["sleep", "600"], environment=os.environ, stdout=subprocess.DEVNULL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(IMPORT_ROOT)}, timeout=20, check=False
    )
    assert done.returncode == -signal.SIGKILL
    entry = f"{MARKER}={tmp_path}".encode()
    try:
        wait_until(lambda: list(_find_processes(entry)) == [], "no child is left", 20)
    finally:
        for pid in _find_processes(entry):
            os.kill(pid, signal.SIGKILL)
