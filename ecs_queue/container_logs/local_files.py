"""The log of a task of the local ECS: one file that has the stdout and stderr of its command."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from ecs_queue.container_logs.base import LogLine, LogUnavailable, Page
from ecs_queue.errors import UsageError

#: The environment variable with the directory in which a local ECS keeps one log per task, `TASK_ID.log`.
LOCAL_LOG_VARIABLE = "ECS_QUEUE_LOCAL_LOG_DIR"
_PAGE_BYTES = 1 << 20
#: How far from the end the newest lines are searched. Bytes.
_MAX_TAIL_BYTES = 8 << 20


class LocalLogFile:
    """Reads a file that grows. The bytes of a line that are no UTF-8 become surrogates, which encode to them again.

    A line that is longer than a page is given in parts.
    """

    settle_seconds = 0.0

    def __init__(self, path: Path, *, tail: int | None = None, mark: str = "") -> None:
        """Read from the start; with `tail`, the newest `tail` lines and what follows; with `mark` from that text on.

        While the file does not have the mark, the lines before its end are read, about 8 MiB of them.
        """
        self.source = f"the local ECS's {path.name}"
        self._path = path
        self._tail = tail
        self._mark = mark.encode()
        self._offset = 0
        self._rest = b""
        self.missing = ""

    def read(self) -> Page:
        """See `LogReader`. A file that does not exist has no lines yet."""
        try:
            with self._path.open("rb") as file:
                if self._tail is not None:
                    self._offset, self._tail = _find_tail(file, self._tail), None
                if self._mark:
                    self._offset, self._mark = _find_mark(file, self._mark), b""
                file.seek(self._offset)
                data = file.read(_PAGE_BYTES)
        except FileNotFoundError:
            self._tail, self._mark = None, b""  # what it has when it comes is new
            self.missing = "there is no such file: the container was not started, or the file was removed"
            return Page([], True)
        except (OSError, ValueError) as error:
            raise LogUnavailable(f"{self.source} cannot be read: {getattr(error, 'strerror', error)}") from error
        self.missing = ""
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) >= _PAGE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        return Page([_to_line(line) for line in lines], len(data) < _PAGE_BYTES)

    def read_rest(self) -> list[LogLine]:
        """See `LogReader`."""
        rest, self._rest = self._rest, b""
        return [_to_line(rest)] if rest else []


def open_local_file(
    directory: Path, task_id: str, *, tail: int | None, since: float | None, mark: str = ""
) -> LocalLogFile:
    """Return the log of a task in a local ECS's directory.

    Raises:
        UsageError: `since` was given: the file has no times.
    """
    if since is not None:
        raise UsageError("the local ECS keeps no times of lines: leave --since out, or use --tail")
    return LocalLogFile(directory / f"{task_id}.log", tail=tail, mark=mark)


def _find_tail(file: BinaryIO, limit: int) -> int:
    """Return the offset of the newest `limit` lines."""
    start = max(0, file.seek(0, 2) - _MAX_TAIL_BYTES)
    file.seek(start)
    data = file.read(_MAX_TAIL_BYTES)
    position = len(data) - data.endswith(b"\n")
    for _ in range(limit):
        position = data.rfind(b"\n", 0, position)
        if position < 0:
            return start
    return start + min(position + 1, len(data))


def _find_mark(file: BinaryIO, mark: bytes) -> int:
    """Return the offset of the mark; without one, an offset some way before the end."""
    size = file.seek(0, 2)
    offset, kept = 0, b""
    while offset < size:
        file.seek(offset)
        data = kept + file.read(_MAX_TAIL_BYTES)
        position = data.find(mark)
        if position >= 0:
            return offset - len(kept) + position
        offset += len(data) - len(kept)
        kept = data[-len(mark) :]
    return max(0, size - _MAX_TAIL_BYTES)


def _to_line(line: bytes) -> LogLine:
    return LogLine(None, line.decode("utf-8", "surrogateescape"))
