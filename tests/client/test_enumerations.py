"""Names that a program keeps in an enumeration of texts, `class Queues(str, Enum)`, and gives to the client."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.states import State


class Name(str, Enum):  # noqa: UP042 - not StrEnum: an f-string of this one is `Name.ID`
    """What the program calls things."""

    ID = "one"
    QUEUE = "high-mem"
    TEAM = "team"
    DATA = "data"
    KEY = "customer-7"
    PERSON = "ann"
    OWNER = "reports"


@pytest.fixture
def queue(redis_url: str) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ={"AIRFLOW__ECS_QUEUE__BROKER_URL": redis_url}, owner=Name.OWNER) as client:
        yield client


def test_a_request_has_their_texts(queue: EcsQueue) -> None:
    handle = queue.submit(
        ["run", Name.ID],
        id=Name.ID,
        queue=Name.QUEUE,
        concurrency_key=Name.KEY,
        labels={Name.TEAM: Name.DATA},
        environment={Name.TEAM: Name.DATA},
    )

    assert handle.id == str(handle.id) == "one"
    record = queue.status("one")
    assert (record.queue, record.concurrency_key, record.owner) == ("high_mem", "customer-7", "reports")
    assert [found.id for found in queue.tasks(queue="high-mem", key="customer-7", labels={"team": "data"})] == ["one"]


def test_a_request_is_found_and_stopped_by_them(queue: EcsQueue) -> None:
    queue.submit(["true"], id="one", queue="high-mem", labels={"team": "data"})

    assert queue.status(Name.ID).state is State.QUEUED
    assert queue.handle(Name.ID).id == str(queue.handle(Name.ID).id) == "one"
    assert [record.id for record in queue.find_records([Name.ID]) if record] == ["one"]
    assert [record.id for record in queue.tasks(queue=Name.QUEUE, labels={Name.TEAM: Name.DATA})] == ["one"]
    assert queue.stop(Name.ID, by=Name.PERSON) is State.REVOKED
    assert queue.status("one").reason == "stopped by ann"
    assert "request.submitted" in [event.name for event in queue.events(Name.ID)]
