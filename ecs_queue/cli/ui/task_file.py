"""The lines of `submit --file`: read, checked and prepared before anything is queued."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ecs_queue.errors import EcsQueueError, IdConflict, InvalidRequest

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.producer import PreparedRequest

#: A line's number and its members, or a prepared request and its line's number.
NumberedTask = tuple[int, Mapping[str, Any]]


def read_task_lines(name: str, data: bytes, defaults: Mapping[str, Any]) -> Iterator[NumberedTask]:
    """The task lines of JSONL `data`, blank ones left out; `defaults` hold where a line says nothing.

    InvalidRequest, `NAME line 17: ...`, for a line that is no JSON object.
    """
    import msgspec

    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            task = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"{name} line {number}: not JSON: {error}") from None
        if not isinstance(task, dict):
            found = type(task).__name__
            raise InvalidRequest(
                f'{name} line {number}: expected an object such as {{"command": ["echo", "hello"]}}, found {found}'
            )
        yield number, {**defaults, **task}


def prepare_task_lines(
    queue: EcsQueue, name: str, tasks: Iterator[NumberedTask], on_prepared: Callable[[], None]
) -> list[PreparedRequest]:
    """All of them as requests, or the error of the first bad one, named by its line. Nothing is queued.

    `seen()` is told after each. Two lines with one id are an error, and so is an id that another request has.
    """
    drafts: list[PreparedRequest] = []
    with_chosen_id: list[PreparedRequest] = []
    lines: dict[str, int] = {}
    for number, task in tasks:
        try:
            draft = queue.prepare(task)
        except EcsQueueError as error:
            raise type(error)(f"{name} line {number}: {error}") from None
        known = lines.setdefault(draft.request.id, number)
        if known != number:
            raise InvalidRequest(f"{name} line {number}: the id {draft.request.id} is that of line {known}")
        drafts.append(draft)
        if task.get("id") is not None:
            with_chosen_id.append(draft)
        on_prepared()
    if not drafts:
        raise InvalidRequest(f"{name}: expected one task a line, found none")
    for conflict in queue.find_conflicts(with_chosen_id)[:1]:
        raise IdConflict(
            f"{name} line {lines[conflict.request.id]}: another request was submitted under the id "
            f"{conflict.request.id}; choose another id, or leave it out"
        )
    return drafts
