"""Cuts the output of one request out of the log of a runner, which has that of many (`runner.log_lines`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from ecs_queue.container_logs.base import LogLine
from ecs_queue.runner.log_lines import parse_line

_PREFIX = "ecs-queue runner: "
_MAX_LINES_WITHOUT_START = 100


def lines_of_launch(
    lines: Iterable[LogLine],
    request_id: str,
    launch: int,
    *,
    is_runner: bool = False,
    unmarked: int = _MAX_LINES_WITHOUT_START,
) -> Iterator[LogLine]:
    """Yield the lines between the start and the end of a launch; all lines of a log that is no runner's.

    A command that writes such a line itself cuts its own output only. If a runner never started a command, its log has
    only its own messages, such as why it cannot start; and of a long log the newest lines may have no start. So without
    any, the newest lines are yielded when the log ends.

    Args:
        lines: The log. It is read no further than to the end of the launch.
        request_id: The request.
        launch: Its launch number.
        is_runner: Whether it is known that the log is a runner's: what stands before the first start is of others,
            unless the launch ends there.
        unmarked: How many lines are yielded without a start.
    """
    is_own = not is_runner
    before_start: deque[LogLine] | None = deque(maxlen=unmarked)
    for line in lines:
        mark = parse_line(line.text)
        if mark is None:
            if is_own:
                yield line
            elif before_start is not None:
                before_start.append(line)
            continue
        is_named = (mark.id, mark.launch) == (request_id, launch)
        if is_named and mark.exit_code is not None and before_start is not None:
            yield from before_start
            is_own = True
        before_start = None
        unfinished = line.text[: line.text.rindex(_PREFIX)]
        if is_own and unfinished:
            yield LogLine(line.at, unfinished)
        if is_named and mark.exit_code is not None:
            return
        is_own = is_named
    yield from before_start or ()
