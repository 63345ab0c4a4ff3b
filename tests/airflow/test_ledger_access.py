"""What the executor takes for the result of one of its requests."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import pytest

from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.messages import envelope
from ecs_queue.messages.result import build_result
from tests.worker.harness import make_config


@pytest.fixture
def ledger_access() -> Iterator[LedgerAccess]:
    config = make_config(namespace=f"t{uuid.uuid4().hex[:12]}")
    opened = LedgerAccess.open(config, "airflow-7", logging.getLogger("test"), lambda _: None)
    yield opened
    opened.close()


def _receive(ledger_access: LedgerAccess) -> list[tuple[str, str]]:
    return [(result.id, result.state) for _ in range(50) for result in ledger_access.receive_results(0.0)]


@pytest.mark.parametrize("owner", ["airflow-7", "airflow-8"])
def test_a_result_message_counts_only_while_the_scheduler_owns_the_request(
    ledger_access: LedgerAccess, owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger_access.send_in_background([ledger_access.prepare({"id": "a", "command": ["true"]})]).result(timeout=10)
    ledger_access._ledger.adopt(["a"], owner)
    stopped = ledger_access.stop(["a"], "test") or []
    ended = stopped[0].record
    assert ended is not None
    ledger_access._broker.publish_results([("airflow-7", envelope.encode(build_result(ended)))])

    received = _receive(ledger_access)

    assert received == ([("a", "REVOKED")] if owner == "airflow-7" else [])
    assert ("Ignoring a result message for a" in caplog.text) is (owner == "airflow-8")
