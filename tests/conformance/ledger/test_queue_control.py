"""Role `QueueControl`: paused queues. That `claim` heeds them is tested with the claims."""

from __future__ import annotations

from tests.conformance.ledger.harness import LedgerHarness
from tests.fake_clock import START


def test_a_paused_queue_is_listed_since_its_first_pause_until_it_is_resumed(harness: LedgerHarness) -> None:
    harness.ledger.pause_queues(["a", "b"])
    harness.advance(5)
    harness.ledger.pause_queues(["a", "c"])
    assert harness.ledger.list_paused_queues() == {"a": START, "b": START, "c": START + 5}
    harness.ledger.resume_queues(["a", "c", "never paused"])
    assert harness.ledger.list_paused_queues() == {"b": START}
