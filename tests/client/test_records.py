"""Finding records in the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.client.records import RecordFilter, find_record, iter_newest, iter_records
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("selection", "fits"),
    [
        (RecordFilter(), True),
        (RecordFilter(states=frozenset({"FAILED"})), True),
        (RecordFilter(states=frozenset({"SUCCESS"})), False),
        (RecordFilter(queue="etl"), True),
        (RecordFilter(queue="default"), False),
        (RecordFilter(since=NOW - 60), True),
        (RecordFilter(since=NOW - 59), False),
        (RecordFilter(owner="me"), True),
        (RecordFilter(owner=""), False),
        (RecordFilter(reason="CANNOTPULL"), True),
        (RecordFilter(reason="cannotpull", queue="default"), False),
    ],
)
def test_a_request_is_selected_when_every_filter_matches(selection: RecordFilter, fits: bool) -> None:
    record = Record(
        id="a", queue="etl", owner="me", state=State.FAILED, created_at=NOW - 60, reason="CannotPullContainerError"
    )
    assert selection.matches(record) == fits


class PagedLedger:
    """A ledger whose pages are given."""

    def __init__(self, *pages: list[Record]) -> None:
        self._pages = pages
        self.page_calls = 0

    def list_records(self, cursor: str, limit: int) -> tuple[list[Record], str]:
        self.page_calls += 1
        position = int(cursor or 0)
        return self._pages[position], str(position + 1) if position + 1 < len(self._pages) else ""

    def find_id_by_arn(self, arn: str) -> None:
        return None


def test_a_record_that_moves_while_the_pages_are_read_is_listed_once() -> None:
    one, two = Record(id="one", nonce="n"), Record(id="two", nonce="n")
    ledger = PagedLedger([one, two], [two], [one, Record(id="one", nonce="another submission")])
    found = list(iter_records(ledger, lambda _: True, 2))  # type: ignore[arg-type]
    assert [(record.id, record.nonce) for record in found] == [
        ("one", "n"),
        ("two", "n"),
        ("one", "another submission"),
    ]


def test_no_more_pages_are_read_than_are_needed() -> None:
    ledger = PagedLedger([Record(id="one")], [Record(id="two")], [Record(id="three")])
    assert next(iter_records(ledger, lambda _: True, 1)).id == "one"  # type: ignore[arg-type]
    assert ledger.page_calls == 1


def test_the_last_ends_come_first_although_the_ledger_lists_unconfirmed_results_before_them() -> None:
    live = [Record(id="live"), Record(id="other", queue="other")]
    unconfirmed = [Record(id=f"old-{number}", state=State.FAILED, finished_at=number) for number in range(600)]
    confirmed = [Record(id=f"new-{number}", state=State.SUCCESS, finished_at=1000 - number) for number in range(600)]

    def find(limit: int, *pages: list[Record]) -> list[str]:
        ledger: Any = PagedLedger(*pages)
        return [record.id for record in iter_newest(ledger, lambda record: record.queue != "other", limit)]

    assert find(4, live, unconfirmed, confirmed) == ["live", "new-0", "new-1", "new-2"]
    assert find(9, live, unconfirmed[:2]) == ["live", "old-1", "old-0"]
    assert find(1, live, unconfirmed) == ["live"]
    assert find(0, live) == []
    # The search ends after 1,000 ended requests, so that a command does not read every record.
    others = [Record(id=f"other-{number}", state=State.FAILED, finished_at=number) for number in range(400)]
    assert find(2, unconfirmed, others, confirmed) == ["old-599", "old-598"]


def test_a_finished_task_is_found_by_its_arn_among_the_newest() -> None:
    ledger = PagedLedger([Record(id="one", arn="a:1")], [Record(id="two", arn="a:2")])
    found = find_record(ledger, "a:2")  # type: ignore[arg-type]
    assert found is not None
    assert found.id == "two"
