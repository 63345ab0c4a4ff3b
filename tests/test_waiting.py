"""Waiting for results, where the client's tests do not reach."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from ecs_queue import waiting
from ecs_queue.core.envelope import encode, result_of
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, ResultTimeout, UnknownTask
from ecs_queue.waiting import Waiting


def _record(record_id: str, state: State = State.SUCCESS, nonce: str = "n") -> Record:
    return Record(id=record_id, nonce=nonce, owner="me", queue="q", state=state)


class Inbox:
    """Hands over what a test puts in; `down`: cannot be reached."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.down = False
        self.drains = 0
        self.opened = 0

    def results(self, owner: str) -> Inbox:
        self.opened += 1
        return self

    def drain(self, timeout: float) -> list[bytes]:
        self.drains += 1
        if self.down:
            raise BrokerUnavailable
        if not self.bodies:
            time.sleep(min(timeout, 0.01))
        bodies, self.bodies = self.bodies, []
        return bodies

    def close(self) -> None:
        self.opened -= 1


class Book:
    """A ledger with the records that a test puts in; remembers what it was asked."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.asked: list[list[str]] = []
        self.failures = 0
        self.confirmed: list[tuple[str, str]] = []

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        self.asked.append(list(ids))
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailable
        return [self.records.get(record_id) for record_id in ids]

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> None:
        self.confirmed.extend(results)


class Bench:
    def __init__(self, owner: str = "me") -> None:
        self.inbox = Inbox()
        self.book = Book()
        self.again: list[str] = []
        self.accepts = True
        self.waiting: Waiting[str] = Waiting(self.inbox, self.book, owner, self._submit_again)  # type: ignore[arg-type]

    def wait(self, *ids: str, timeout: float = 5.0, draft: str | None = None) -> list[str]:
        wanted = {(record_id, "n"): draft for record_id in ids}
        return [result.id for result in self.waiting.as_completed(wanted, timeout)]

    def send(self, *records: Record) -> None:
        """Ended in the ledger, and announced."""
        self.book.records.update({record.id: record for record in records})
        self.forge(*records)

    def forge(self, *records: Record) -> None:
        """Announced, whatever the ledger says."""
        self.inbox.bodies += [encode(result_of(record)) for record in records]

    def _submit_again(self, draft: str) -> bool:
        self.again.append(draft)
        if self.accepts:
            self.book.records["a"] = _record("a")
        return self.accepts


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(waiting, "_RECONCILE_EVERY", 0.02)
    return Bench()


def test_what_came_before_it_was_waited_for_is_kept(bench: Bench) -> None:
    bench.book.records.update({name: _record(name, State.LAUNCHED) for name in "ab"})
    bench.send(_record("b"), _record("a"))

    assert bench.wait("a") == ["a"]
    assert bench.wait("b") == ["b"]


def test_only_so_much_is_kept_and_the_rest_found_in_the_ledger(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_EARLY_KEPT", 10)
    bench.book.records.update({f"t{index}": _record(f"t{index}") for index in range(100)})
    bench.send(*[_record(f"t{index}") for index in range(100)], _record("a"))

    bench.wait("a")

    assert len(bench.waiting._early) == 10
    assert bench.wait("t0", "t99") == ["t99", "t0"]


def test_nothing_is_kept_of_what_was_waited_for(bench: Bench) -> None:
    bench.book.records["b"] = _record("b", State.LAUNCHED)
    bench.send(_record("a"))
    bench.wait("a", draft="draft")
    with pytest.raises(ResultTimeout):
        bench.wait("b", timeout=0.05, draft="draft")

    assert not bench.waiting._wanted
    assert not bench.waiting._drafts
    assert not bench.waiting._early


def test_a_result_of_another_submission_of_the_id_is_not_taken_for_it(bench: Bench) -> None:
    bench.book.records["a"] = _record("a", State.LAUNCHED)
    bench.forge(_record("a", nonce="other"))

    with pytest.raises(ResultTimeout):
        bench.wait("a", timeout=0.2)


def test_a_doubled_result_is_handed_out_once(bench: Bench) -> None:
    bench.book.records["b"] = _record("b")
    bench.send(_record("a"), _record("a"))

    assert sorted(bench.wait("a", "b")) == ["a", "b"]


def test_a_broker_that_is_down_is_left_alone_for_a_while(bench: Bench) -> None:
    bench.inbox.down = True
    bench.book.records["a"] = _record("a", State.LAUNCHED)

    with pytest.raises(ResultTimeout):
        bench.wait("a", timeout=0.6)

    assert bench.inbox.drains == 1


def test_the_ledger_is_asked_about_so_many_at_once_in_turn(bench: Bench) -> None:
    ids = [f"t{index}" for index in range(1100)]
    bench.book.records.update({record_id: _record(record_id) for record_id in ids})

    assert set(bench.wait(*ids)) == set(ids)

    assert [len(asked) for asked in bench.book.asked] == [500, 500, 100]


def test_a_lost_put_is_submitted_again(bench: Bench) -> None:
    assert bench.wait("a", draft="the envelope") == ["a"]

    assert bench.again == ["the envelope"]


def test_a_stop_that_the_ledger_has_without_its_request_is_not_the_end(bench: Bench) -> None:
    """The put that would have told whose it is was lost."""
    bench.book.records["a"] = _record("a", State.REVOKED, nonce="")

    bench.wait("a", draft="the envelope")

    assert bench.again == ["the envelope"]


def test_what_is_not_accepted_again_is_unknown(bench: Bench) -> None:
    bench.accepts = False

    with pytest.raises(UnknownTask, match="a"):
        bench.wait("a", draft="the envelope")


def test_without_an_owner_neither_messages_nor_confirmations_are_used() -> None:
    bench = Bench(owner="")
    bench.book.records["a"] = _record("a")

    assert bench.wait("a") == ["a"]
    bench.waiting.close()

    assert (bench.inbox.drains, bench.book.confirmed, bench.waiting.used) == (0, [], False)


def test_closing_confirms_and_closes_the_inbox(bench: Bench) -> None:
    bench.send(_record("a"))
    next(bench.waiting.as_completed({("a", "n"): None}, 5.0))
    assert bench.waiting.used

    bench.waiting.close()

    assert bench.book.confirmed == [("a", "n")]
    assert bench.inbox.opened == 0


@pytest.mark.parametrize(
    "truth",
    [
        None,
        _record("a", State.LAUNCHED),
        _record("a", nonce="other"),
        Record(id="a", nonce="n", owner="somebody", queue="q", state=State.SUCCESS),
    ],
    ids=["an unknown id", "not ended", "a wrong nonce", "another owner's"],
)
def test_a_forged_result_is_not_believed(bench: Bench, truth: Record | None) -> None:
    if truth is not None:
        bench.book.records["a"] = truth
    bench.book.records["b"] = _record("b")
    bench.forge(_record("a"))
    bench.send(_record("b"))

    assert bench.wait("b") == ["b"]

    assert not bench.waiting._early
    assert ("a", "n") not in bench.book.confirmed


def test_a_result_is_what_the_ledger_says_and_not_what_its_message_says(bench: Bench) -> None:
    bench.book.records["a"] = _record("a", State.FAILED)
    bench.forge(_record("a", State.SUCCESS))

    (result,) = bench.waiting.as_completed({("a", "n"): None}, 5.0)

    assert result.state == State.FAILED


def test_results_wait_for_a_ledger_that_cannot_be_asked(bench: Bench) -> None:
    bench.send(_record("a"))
    bench.book.failures = 3

    assert bench.wait("a") == ["a"]
