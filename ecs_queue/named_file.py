"""Files whose names users give: a name can be impossible, and a file such as /dev/zero has no end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO


def open_named_file(path: str | Path) -> IO[bytes]:
    """Open a file for reading. OSError, also for a name with a null character."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a file's name has no null character", str(path))
    return Path(path).open("rb")


def read_named_file(path: str | Path, max_bytes: int) -> bytes:
    """Return the content of a file. OSError if it cannot be read, or has more than `max_bytes`."""
    with open_named_file(path) as file:
        return read_stream(file, max_bytes)


def read_stream(stream: IO[bytes], max_bytes: int) -> bytes:
    """Return what is left in a stream. OSError if that is more than `max_bytes`."""
    content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"{os.strerror(errno.EFBIG)}: it has more than {max_bytes} bytes")
    return content
