"""Directories and files of the local stack that only its user can read, and locks that show whether it is in use.

A process that is killed leaves its temporary directories behind, and its children if its reaper was killed too. So
each directory has a lock file, which the kernel unlocks when its process ends, and each child has the directory's path
in its environment (`ecs_queue.local.reaper.MARKER`). The next process that makes such a directory removes what has no
owner any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO

from ecs_queue.errors import UsageError
from ecs_queue.local.reaper import kill_marked_processes

#: For processes whose files only their user may read.
PRIVATE_UMASK = 0o077
#: How the names of temporary directories begin.
PREFIX = "ecs-queue-"
_LOCK_NAME = ".owner"


class OwnedDirectory:
    """A directory that one process uses; other users cannot enter it. Not thread-safe."""

    def __init__(self, path: Path, lock: int, *, is_temporary: bool) -> None:
        """Use `claim` or `make_temporary`."""
        self.path = path
        self._lock: int | None = lock
        self._is_temporary = is_temporary

    @classmethod
    def claim(cls, path: Path) -> OwnedDirectory:
        """Own a directory that is kept, and kill the processes that a killed owner of it has left.

        Raises:
            UsageError: another process owns it.
        """
        make_private_directory(path)
        lock = _try_lock(path)
        if lock is None:
            raise UsageError(f"{path} is used by another local stack: stop that, or choose another directory")
        kill_marked_processes(path)
        return cls(path, lock, is_temporary=False)

    @classmethod
    def make_temporary(cls, name: str) -> OwnedDirectory:
        """Make a directory `ecs-queue-NAME-...` that `close` removes, and remove those whose owners are dead."""
        remove_abandoned_directories()
        # It gets its final name when it is locked: until then no other stack takes it for an abandoned one.
        made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{name}-"))
        lock = _try_lock(made)
        assert lock is not None, "no other process knows this directory"
        path = made.with_name(made.name[1:])
        made.rename(path)
        return cls(path, lock, is_temporary=True)

    def close(self) -> None:
        """Remove it if it is temporary, and stop owning it. May be called twice."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self._is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(lock)


def make_private_directory(path: Path) -> None:
    """Make a directory, and its parents, that only this user can enter; one that exists keeps its permissions.

    Raises:
        UsageError: another user can put files or links into the directory that exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise UsageError(
            f"{path} belongs to another user, who could change what is kept there: choose another directory"
        )
    if found.st_mode & stat.S_IWOTH:
        raise UsageError(f"{path} can be written by every user: choose another directory, or take that permission away")


def open_private_file(path: Path, mode: str) -> IO[bytes]:
    """Open a file for writing (`ab`, `wb`) that only this user can read, also if it existed with other permissions."""

    def open_private(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)
        return descriptor

    return open(path, mode, opener=open_private)


def remove_abandoned_directories() -> None:
    """Kill the processes, and remove the temporary directories, of this user's owners that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # its owner removes it just now
            found = directory.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and (directory / _LOCK_NAME).exists():
                _remove_if_abandoned(directory)


def _remove_if_abandoned(directory: Path) -> None:
    lock = _try_lock(directory)
    if lock is None:
        return
    try:
        kill_marked_processes(directory)
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(lock)


def _try_lock(directory: Path) -> int | None:
    """The open lock file; None when another process holds the lock."""
    lock = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
