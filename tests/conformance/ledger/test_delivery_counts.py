"""Role `DeliveryCounts`: deliveries of a request's body that no worker completed."""

from __future__ import annotations

from tests.conformance.ledger.harness import LedgerHarness


def test_deliveries_are_counted_until_one_ends(harness: LedgerHarness) -> None:
    assert [
        harness.ledger.begin_delivery("a", "delivery-1"),
        harness.ledger.begin_delivery("a", "delivery-2"),
        harness.ledger.begin_delivery("b", "delivery-3"),
    ] == [1, 2, 1]

    harness.ledger.end_delivery("a")
    harness.ledger.end_delivery("never held")

    again = [harness.ledger.begin_delivery("a", "delivery-4"), harness.ledger.begin_delivery("b", "delivery-5")]
    assert again == [1, 2]
