"""The lines of a task file: every mistake is named by its line before anything is queued."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_queue.cli.ui.task_file import prepare_task_lines, read_task_lines
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import ConfigError, IdConflict, InvalidRequest


@pytest.fixture
def queue(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as built:
        yield built


def test_blank_lines_are_skipped_but_counted_and_a_byte_order_mark_is_removed() -> None:
    data = b'\xef\xbb\xbf{"command": ["a"]}\n\n  \r\n{"command": ["b"]}\r\n'
    assert list(read_task_lines("T", data, {})) == [(1, {"command": ["a"]}), (4, {"command": ["b"]})]


def test_defaults_apply_where_a_line_does_not_set_a_member() -> None:
    data = b'{"command": ["a"], "queue": "own"}\n{"command": ["b"]}'
    found = [task["queue"] for _, task in read_task_lines("T", data, {"queue": "given"})]
    assert found == ["own", "given"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON"),
        (b'{"command": ["\xff"]}', "not JSON"),
        (b'{"command": ["\\ud800"]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'["true"]', "expected an object"),
        (b"null", "expected an object"),
        (b'{"command": "true"}', "command: expected a list of strings"),
        (b'{"command": []}', "command"),
        (b'{"command": ["a", 5]}', "command"),
        (b"{}", "command"),
        (b'{"command": ["a"], "gpu": 5}', "unknown member 'gpu'"),
        (b'{"command": ["a"], "cpu": "5"}', "cpu"),
        (b'{"command": ["a"], "priority": 10}', "priority"),
        (b'{"command": ["a"], "expires_in": -1}', "expires_in"),
        (b'{"command": ["a"], "relaunch": "always"}', "relaunch"),
        (b'{"command": ["a"], "id": "two words"}', "id"),
        (b'{"command": ["a"], "id": ""}', "id"),
        (b'{"command": ["a"], "queue": "a/b"}', "queue"),
        (b'{"command": ["a"], "executor_config": {"nonsense": 1}}', "nonsense"),
    ],
)
def test_a_bad_line_is_named_by_its_number(queue: EcsQueue, line: bytes, words: str) -> None:
    data = b'{"command": ["true"]}\n' * 16 + line
    with pytest.raises(InvalidRequest) as raised:
        prepare_task_lines(queue, "TASKS.jsonl", read_task_lines("TASKS.jsonl", data, {}), lambda: None)
    assert str(raised.value).startswith("TASKS.jsonl line 17: ")
    assert words in str(raised.value)


def test_a_queue_that_cannot_launch_is_named_by_its_line(no_worker_environ: dict[str, str]) -> None:
    environ = {name: value for name, value in no_worker_environ.items() if not name.endswith("CLUSTER")}
    with (
        EcsQueue.from_config(environ=environ, owner="") as queue,
        pytest.raises(ConfigError, match=r"^T line 1: queue 'gpu': expected cluster to be set"),
    ):
        prepare_task_lines(queue, "T", read_task_lines("T", b'{"command": ["a"], "queue": "gpu"}', {}), lambda: None)


def test_two_lines_with_one_id_are_an_error(queue: EcsQueue) -> None:
    data = b'{"id": "a", "command": ["true"]}\n\n{"id": "a", "command": ["true"]}'
    with pytest.raises(InvalidRequest, match=r"^T line 3: line 1 has the same id a"):
        prepare_task_lines(queue, "T", read_task_lines("T", data, {}), lambda: None)


def test_a_file_without_tasks_is_an_error(queue: EcsQueue) -> None:
    with pytest.raises(InvalidRequest, match=r"^T: expected one task a line, found none"):
        prepare_task_lines(queue, "T", read_task_lines("T", b"\n \n", {}), lambda: None)


def test_an_id_that_another_request_has_is_found_before_anything_is_queued(queue: EcsQueue) -> None:
    queue.submit(["true"], id="taken")
    data = b'{"command": ["a"]}\n{"id": "taken", "command": ["false"]}'
    with pytest.raises(IdConflict, match=r"^T line 2: another request"):
        prepare_task_lines(queue, "T", read_task_lines("T", data, {}), lambda: None)


def test_the_same_request_again_and_an_id_that_was_stopped_in_advance_are_no_conflict(queue: EcsQueue) -> None:
    queue.submit(["true"], id="again")
    queue.stop("stopped")
    data = b'{"id": "again", "command": ["true"]}\n{"id": "stopped", "command": ["true"]}'
    prepared: list[None] = []
    prepared_requests = prepare_task_lines(queue, "T", read_task_lines("T", data, {}), lambda: prepared.append(None))
    assert [item.request.id for item in prepared_requests] == ["again", "stopped"]
    assert len(prepared) == 2
