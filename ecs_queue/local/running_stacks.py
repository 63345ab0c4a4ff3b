"""The environments of this user's running local stacks, so that another shell can use one without copying it.

Each is a private file in a temporary directory of the stack's process, which removes it at its end; what a killed
process leaves is removed by the next reader. Other users can neither read such a file nor make one that is used: a
shell executes what it says.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ecs_queue.local.private_files import (
    PREFIX,
    OwnedDirectory,
    open_private_file,
    remove_abandoned_directories,
)

_KIND = "running"
_FILE_NAME = "environment.json"


@contextlib.contextmanager
def publish_environment(exports: Mapping[str, str]) -> Iterator[None]:
    """Let `find_environments` find these variables within the context, or until the process ends."""
    with contextlib.closing(OwnedDirectory.make_temporary(_KIND)) as directory:
        with open_private_file(directory.path / _FILE_NAME, "wb") as file:
            file.write(json.dumps(dict(exports)).encode())
        yield


def find_environments() -> list[dict[str, str]]:
    """Return the variables of each running stack of this user."""
    remove_abandoned_directories()
    directories = sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}{_KIND}-*"))
    return [found for directory in directories if (found := _read_environment(directory)) is not None]


def _read_environment(directory: Path) -> dict[str, str] | None:
    """Return what the file says; None when it is not there (yet), or not this user's alone."""
    try:
        if not _is_private(directory.lstat(), stat.S_ISDIR):
            return None
        descriptor = os.open(directory / _FILE_NAME, os.O_RDONLY | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            if not _is_private(os.fstat(descriptor), stat.S_ISREG):
                return None
            environment: dict[str, str] = json.loads(file.read())
            return environment
    except (OSError, ValueError):
        return None


def _is_private(found: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
