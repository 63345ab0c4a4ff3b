"""Reads, checks and prepares the lines of `submit --file` before anything is queued."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ecs_queue.error_text import error_text
from ecs_queue.errors import EcsQueueError, IdConflict, InvalidRequest

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.producer import PreparedRequest

#: A line's number and its members.
NumberedTask = tuple[int, Mapping[str, Any]]


def read_task_lines(name: str, data: bytes, defaults: Mapping[str, Any]) -> Iterator[NumberedTask]:
    """Yield the task lines of a JSONL file, without blank ones.

    Args:
        name: The file's name, for errors.
        data: Its content.
        defaults: The members of lines that do not set them.

    Raises:
        InvalidRequest: A line is no JSON object; the message begins with `NAME line 17:`.
    """
    import msgspec

    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            task = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"{name} line {number}: not JSON: {error_text(error)}") from None
        if not isinstance(task, dict):
            expected = 'an object such as {"command": ["echo", "hello"]}'
            raise InvalidRequest(f"{name} line {number}: expected {expected}, found {type(task).__name__}")
        yield number, {**defaults, **task}


def prepare_task_lines(
    queue: EcsQueue, name: str, tasks: Iterator[NumberedTask], on_prepared: Callable[[], None]
) -> list[PreparedRequest]:
    """Prepare all lines as requests; nothing is queued.

    Args:
        queue: The client to prepare with.
        name: The file's name, for errors.
        tasks: What `read_task_lines` yields.
        on_prepared: Called after each line.

    Raises:
        InvalidRequest, ConfigError: A line is not valid, two lines have one id, or there is no line.
        IdConflict: Another request has the id of a line.
    """
    prepared_requests: list[PreparedRequest] = []
    chosen: list[PreparedRequest] = []
    lines: dict[str, int] = {}
    for number, task in tasks:
        try:
            item = queue.prepare(task)
        except EcsQueueError as error:
            raise type(error)(f"{name} line {number}: {error}") from None
        if lines.setdefault(item.request.id, number) != number:
            raise InvalidRequest(
                f"{name} line {number}: line {lines[item.request.id]} has the same id {item.request.id}"
            )
        prepared_requests.append(item)
        if task.get("id") is not None:
            chosen.append(item)
        on_prepared()
    if not prepared_requests:
        raise InvalidRequest(f"{name}: expected one task a line, found none")
    for conflict in queue.find_conflicts(chosen)[:1]:
        record_id = conflict.request.id
        raise IdConflict(
            f"{name} line {lines[record_id]}: another request was submitted under the id {record_id}; "
            "choose another id, or leave it out"
        )
    return prepared_requests
