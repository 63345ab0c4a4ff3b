"""Role `DeadLetters`: stored byte for byte, found by key and page by page, deleted one by one, and bounded."""

from __future__ import annotations

import pytest

from ecs_queue.ledger.entries import DeadLetter, dead_letter_key
from ecs_queue.protocol import settings
from tests.conformance.ledger.harness import LedgerHarness
from tests.fake_clock import START


def _add_dead_letters(harness: LedgerHarness, *keys: str, body: bytes = b"x") -> None:
    for key in keys:
        harness.ledger.add_dead_letter(DeadLetter(key=key, queue="a", reason="because", body=body))


def _keys(harness: LedgerHarness) -> list[str]:
    return [dead_letter.key for dead_letter in harness.ledger.list_dead_letters(100_000)]


def test_dead_letters_are_kept_byte_for_byte_newest_first(harness: LedgerHarness) -> None:
    body = bytes(range(256))
    harness.ledger.add_dead_letter(DeadLetter(key="1", queue="a", reason="not JSON: x y", body=body))
    harness.advance(2)
    harness.ledger.add_dead_letter(DeadLetter(key="2", queue="b", reason="ü", body=b""))
    newest, oldest = harness.ledger.list_dead_letters(10)
    assert newest == DeadLetter(key="2", queue="b", reason="ü", body=b"", added_at=START + 2)
    assert oldest == DeadLetter(key="1", queue="a", reason="not JSON: x y", body=body, added_at=START)
    assert harness.ledger.list_dead_letters(1) == [newest]


def test_dead_letters_are_counted_by_the_queue_that_their_keys_name(harness: LedgerHarness) -> None:
    for key in ("1", dead_letter_key("a.b", "2"), dead_letter_key("a.b", "3")):
        harness.ledger.add_dead_letter(DeadLetter(key=key, queue="a.b", reason="because", body=b"x"))
    assert harness.ledger.count_dead_letters() == {"": 1, "a.b": 2}
    assert harness.ledger.total_dead_letters() == 3
    harness.ledger.delete_dead_letters(["1"])
    assert harness.ledger.count_dead_letters() == {"a.b": 2}
    assert harness.ledger.total_dead_letters() == 2


def test_adding_a_dead_letter_twice_stores_one(harness: LedgerHarness) -> None:
    _add_dead_letters(harness, "1")
    harness.advance(5)
    harness.ledger.add_dead_letter(DeadLetter(key="1", queue="b", reason="another", body=b"another"))
    assert harness.ledger.list_dead_letters(10) == [
        DeadLetter(key="1", queue="a", reason="because", body=b"x", added_at=START)
    ]


def test_dead_letters_are_found_by_their_keys(harness: LedgerHarness) -> None:
    _add_dead_letters(harness, "1", "2")
    found = harness.ledger.get_dead_letters(["2", "unknown", "1"])
    assert [dead_letter.key if dead_letter else None for dead_letter in found] == ["2", None, "1"]
    assert found[2] == DeadLetter(key="1", queue="a", reason="because", body=b"x", added_at=START)
    assert harness.ledger.get_dead_letters([]) == []


def test_pages_have_every_dead_letter_once_while_others_are_added_and_deleted(
    harness: LedgerHarness,
) -> None:
    _add_dead_letters(harness, "old-2", "old-0", "old-1", "old-10", "old-9")
    harness.advance(1)
    _add_dead_letters(harness, "new-2", "new-0", "new-1", "new-10", "new-9")
    listed: list[DeadLetter] = []
    while page := harness.ledger.list_dead_letters(3, listed[-1] if listed else None):
        listed += page
        harness.ledger.delete_dead_letters([page[-1].key])  # the very one the next page begins after
        harness.advance(1)
        _add_dead_letters(harness, f"late-{len(listed)}")
    expected = [f"{age}-{n}" for age in ("new", "old") for n in (9, 10, 1, 0, 2)]  # the last one added first
    assert [dead_letter.key for dead_letter in listed] == expected


def test_a_deleted_dead_letter_is_gone_and_the_others_stay(harness: LedgerHarness) -> None:
    _add_dead_letters(harness, "1", "2", "3")
    assert harness.ledger.delete_dead_letters(["2", "unknown", "2"]) == [True, False, False]
    assert _keys(harness) == ["3", "1"]
    assert harness.ledger.get_dead_letters(["2"]) == [None]


def test_thousands_of_keys_are_found_at_once(harness: LedgerHarness) -> None:
    keys = [f"{n:04}" for n in range(130)]
    _add_dead_letters(harness, *keys)
    assert [dead_letter.key for dead_letter in harness.ledger.get_dead_letters(keys) if dead_letter] == keys
    assert harness.ledger.delete_dead_letters(keys) == [True] * len(keys)
    assert _keys(harness) == []


@pytest.mark.slow  # fakeredis needs 9 s
def test_the_oldest_dead_letters_are_dropped_when_all_together_are_too_long(harness: LedgerHarness) -> None:
    half = b"x" * (settings.MAX_DEAD_LETTER_BYTES // 8 * 3)  # half of the bound as base64
    for key in ("1", "2", "3"):
        harness.advance(1)
        _add_dead_letters(harness, key, body=half)
    assert _keys(harness) == ["3"]
    _add_dead_letters(harness, "4")  # a short one has room
    assert _keys(harness) == ["4", "3"]
    harness.ledger.delete_dead_letters(["3", "4"])
    harness.advance(1)
    _add_dead_letters(harness, "5", body=half)
    _add_dead_letters(harness, "6")
    assert _keys(harness) == ["6", "5"]


def test_old_dead_letters_are_dropped_with_the_next_one_or_by_prune(harness: LedgerHarness) -> None:
    _add_dead_letters(harness, "1")
    harness.advance(settings.MAX_DEAD_LETTER_AGE / 2)
    _add_dead_letters(harness, "2")
    harness.advance(settings.MAX_DEAD_LETTER_AGE / 2)
    _add_dead_letters(harness, "3")
    assert _keys(harness) == ["3", "2"]
    harness.advance(settings.MAX_DEAD_LETTER_AGE / 2)
    assert harness.ledger.prune(10) == 0  # it counts records
    assert _keys(harness) == ["3"]
