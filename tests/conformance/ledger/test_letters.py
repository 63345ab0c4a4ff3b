"""Dead letters: kept byte for byte, found by key and page by page, dropped one by one, and bounded."""

from __future__ import annotations

import re
from importlib.resources import files

from ecs_queue.ledger import retention
from ecs_queue.ledger.base import DeadLetter
from tests.conformance.ledger.lab import START, Lab


def _bury(lab: Lab, *keys: str, body: bytes = b"x") -> None:
    for key in keys:
        lab.ledger.bury(DeadLetter(key=key, queue="a", reason="because", body=body))


def _keys(lab: Lab) -> list[str]:
    return [letter.key for letter in lab.ledger.dead(100_000)]


def test_dead_letters_are_kept_byte_for_byte_newest_first(lab: Lab) -> None:
    body = bytes(range(256))
    lab.ledger.bury(DeadLetter(key="1", queue="a", reason="not JSON: x y", body=body))
    lab.advance(2)
    lab.ledger.bury(DeadLetter(key="2", queue="b", reason="ü", body=b""))
    newest, oldest = lab.ledger.dead(10)
    assert newest == DeadLetter(key="2", queue="b", reason="ü", body=b"", at=START + 2)
    assert oldest == DeadLetter(key="1", queue="a", reason="not JSON: x y", body=body, at=START)
    assert lab.ledger.dead(1) == [newest]


def test_a_burial_that_is_repeated_is_one(lab: Lab) -> None:
    _bury(lab, "1")
    lab.advance(5)
    lab.ledger.bury(DeadLetter(key="1", queue="b", reason="another", body=b"another"))
    assert lab.ledger.dead(10) == [DeadLetter(key="1", queue="a", reason="because", body=b"x", at=START)]


def test_letters_are_found_by_their_keys(lab: Lab) -> None:
    _bury(lab, "1", "2")
    found = lab.ledger.letters(["2", "nobody", "1"])
    assert [letter.key if letter else None for letter in found] == ["2", None, "1"]
    assert found[2] == DeadLetter(key="1", queue="a", reason="because", body=b"x", at=START)
    assert lab.ledger.letters([]) == []


def test_pages_have_every_letter_once_also_of_one_moment_and_while_some_come_and_go(lab: Lab) -> None:
    _bury(lab, "old-2", "old-0", "old-1", "old-10", "old-9")
    lab.advance(1)
    _bury(lab, "new-2", "new-0", "new-1", "new-10", "new-9")
    seen: list[DeadLetter] = []
    while page := lab.ledger.dead(3, seen[-1] if seen else None):
        seen += page
        lab.ledger.discard([page[-1].key])  # the very one the next page begins after
        lab.advance(1)
        _bury(lab, f"late-{len(seen)}")
    expected = [f"{age}-{n}" for age in ("new", "old") for n in (9, 10, 1, 0, 2)]  # the last one buried first
    assert [letter.key for letter in seen] == expected


def test_a_discarded_letter_is_gone_and_the_others_stay(lab: Lab) -> None:
    _bury(lab, "1", "2", "3")
    assert lab.ledger.discard(["2", "nobody", "2"]) == [True, False, False]
    assert _keys(lab) == ["3", "1"]
    assert lab.ledger.letters(["2"]) == [None]


def test_many_keys_are_no_trouble(lab: Lab) -> None:
    keys = [f"{n:04}" for n in range(130)]
    _bury(lab, *keys)
    assert [letter.key for letter in lab.ledger.letters(keys) if letter] == keys
    assert lab.ledger.discard(keys) == [True] * len(keys)
    assert _keys(lab) == []


def test_the_oldest_letters_go_when_all_together_are_too_long(lab: Lab) -> None:
    half = b"x" * (retention.DEAD_LETTERS_BYTES // 8 * 3)  # half of the bound as base64
    for key in ("1", "2", "3"):
        lab.advance(1)
        _bury(lab, key, body=half)
    assert _keys(lab) == ["3"]
    _bury(lab, "4")  # a short one has room
    assert _keys(lab) == ["4", "3"]
    lab.ledger.discard(["3", "4"])
    lab.advance(1)
    _bury(lab, "5", body=half)
    _bury(lab, "6")
    assert _keys(lab) == ["6", "5"]


def test_old_letters_are_dropped_with_the_next_burial_or_by_the_sweep(lab: Lab) -> None:
    _bury(lab, "1")
    lab.advance(retention.DEAD_LETTERS_SECONDS / 2)
    _bury(lab, "2")
    lab.advance(retention.DEAD_LETTERS_SECONDS / 2)
    _bury(lab, "3")
    assert _keys(lab) == ["3", "2"]
    lab.advance(retention.DEAD_LETTERS_SECONDS / 2)
    assert lab.ledger.prune(10) == 0  # it counts records
    assert _keys(lab) == ["3"]


def test_both_forms_have_the_same_bounds() -> None:
    schema = (files("ecs_queue.ledger") / "lua" / "00_schema.lua").read_text()
    found = re.search(r"local DEAD_LETTERS_KEPT, DEAD_LETTERS_BYTES, DEAD_LETTERS_SECONDS = (.*)", schema)
    assert found is not None
    bounds = [eval(product) for product in found[1].split(", ")]
    assert bounds == [retention.DEAD_LETTERS_KEPT, retention.DEAD_LETTERS_BYTES, retention.DEAD_LETTERS_SECONDS]
