"""All spellings of a queue's name are one queue, for those who publish and for those who consume."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.airflow.config import resolve_queue
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.queue_names import canonical_queue_name, is_queue_name
from ecs_queue.messages.request import new_request
from ecs_queue.worker.worker import Worker
from tests.client.harness import ClientHarness

NAMES = st.from_regex(r"\A[A-Za-z0-9_.-]{1,64}\Z")
SPELLINGS = ["high-mem.v2", "High-Mem.v2", "HIGH_MEM_V2", "high_mem_v2"]


def request_of(queue: str) -> Any:
    return new_request(id="a", command=["true"], now=1.0, accept_seconds=60.0, queue=queue)


@pytest.mark.parametrize("published", SPELLINGS)
@pytest.mark.parametrize("served", SPELLINGS)
def test_a_request_reaches_the_worker_in_whatever_spelling_both_name_the_queue(
    harness: ClientHarness, queue: EcsQueue, published: str, served: str
) -> None:
    queue.submit(["true"], queue=published)
    worker = Worker(harness.config, harness.broker, harness.memory_ledger, queues=[served, published])
    assert worker.queues == [message.queue for message in harness.broker.published] == ["high_mem_v2"]
    assert queue.backlog(served) == 1


@pytest.mark.parametrize("airflow_queue", SPELLINGS)
@pytest.mark.parametrize("section", SPELLINGS)
def test_airflows_queue_is_the_one_that_workers_consume(tmp_path: Any, airflow_queue: str, section: str) -> None:
    """A profile made by variables alone has lost the spelling; one made by a file has it."""
    file = tmp_path / "ecs_queue.cfg"
    file.write_text(f"[aws_ecs_executor.{section}]\ncluster = big\n")
    variables = {"AIRFLOW__AWS_ECS_EXECUTOR_HIGH_MEM_V2__CLUSTER": "big"}
    for config in (load_config(str(file), {}), load_config(environ=variables)):
        found = resolve_queue(config, airflow_queue)
        assert found == canonical_queue_name(airflow_queue) == request_of(airflow_queue).queue
        assert config.profile(found).cluster == "big"


@given(NAMES)
def test_the_canonical_name_is_a_valid_name_and_its_own(name: str) -> None:
    canonical = canonical_queue_name(name)
    assert is_queue_name(canonical)
    assert canonical_queue_name(canonical) == canonical == request_of(name).queue


@pytest.mark.parametrize("name", ["a b", "", "é", "x" * 65, "a\n"])
def test_an_invalid_name_is_refused_and_not_mended(name: str) -> None:
    assert not is_queue_name(name)
    with pytest.raises(InvalidRequest, match="queue"):
        request_of(name)
