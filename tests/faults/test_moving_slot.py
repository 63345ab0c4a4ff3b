"""A slot that an operator moves to another node of the cluster, key by key (`CLUSTER SETSLOT`, `MIGRATE`)."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.errors import JournalUnavailable, LedgerUnavailable
from ecs_queue.journal import RedisJournal
from ecs_queue.journal.base import EventBatch
from ecs_queue.messages.keyring import Keyring
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.server_keys import ledger_prefix
from tests.conformance.ledger.harness import NAMESPACE, claim_request, make_redis_harness
from tests.replicated_servers import ValkeyCluster

pytestmark = pytest.mark.slow

_KEY = ledger_prefix(NAMESPACE)
_REFUSED = "ASK, the slot is moving"


def _make_batch(number: int) -> EventBatch:
    return EventBatch(writer_id="w", batch_number=number, worker="w", event_count=0, request_ids=["a"], body=b"[]")


def test_no_script_changes_anything_while_a_node_has_a_part_of_the_keys(cluster: ValkeyCluster) -> None:
    """A claim would set the record's state, and then fail at an index that this node does not have."""
    source = cluster.client(cluster.owner(_KEY))
    harness = make_redis_harness(source)
    limits: Any = {"max_bytes": 5_000, "max_element_bytes": 10_000, "retention_seconds": 60.0}
    journal = RedisJournal(source, Keyring(NAMESPACE), **limits)
    journal.append(_make_batch(1))
    harness.make_ended("b")  # this and the pause: every key is there that a claim touches before the index of launches
    harness.ledger.pause_queues(["other"])
    before = harness.make_queued("a")

    def try_scripts() -> None:
        with pytest.raises(LedgerUnavailable, match=_REFUSED):
            harness.ledger.claim("a", claim_request())
        with pytest.raises(JournalUnavailable, match=_REFUSED):
            journal.append(_make_batch(2))
        assert harness.get_record("a") == before
        assert journal.size()[0] == 1

    cluster.move_slot(_KEY, try_scripts)

    harness = make_redis_harness(cluster.client(cluster.owner(_KEY)))
    assert harness.get_record("a") == before
    assert harness.ledger.claim("a", claim_request()).code is ResultCode.RUN_TASK
