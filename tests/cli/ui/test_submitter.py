"""Submissions and waits that outlast outages of the servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ecs_queue.cli.ui import submitter
from ecs_queue.cli.ui.submitter import Submitter, wait_for_results
from ecs_queue.errors import LedgerUnavailable, ResultTimeout
from ecs_queue.messages.result import TaskResult


class Identified:
    """Stands for a handle, a prepared or a result: what has an id."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.request = self


def identified(number: int) -> list[Any]:
    return [Identified(f"r{position}") for position in range(number)]


class FlakyQueue:
    """A queue that raises the given errors, one a call; None: the call succeeds."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.sent: list[list[str]] = []

    def send(self, prepared_requests: Sequence[Any]) -> list[Any]:
        self.sent.append([prepared.id for prepared in prepared_requests])
        self._fail()
        return list(prepared_requests)

    def as_completed(self, handles: Sequence[Any], timeout: float | None) -> Iterator[Any]:
        for position, handle in enumerate(handles):
            if position == 1:
                self._fail()
            yield handle

    def _fail(self) -> None:
        found = self.failures.pop(0) if self.failures else None
        if found is not None:
            raise found


@pytest.fixture(autouse=True)
def _no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "_RETRY_SECONDS", 0.0)


def ledger_unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("the ledger is unavailable")


def test_a_batch_whose_answer_is_lost_is_sent_again_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    queue: Any = FlakyQueue(None, ledger_unavailable(), ledger_unavailable())
    batch_sizes: list[int] = []
    prepared_requests = identified(250)
    assert Submitter(queue).submit(prepared_requests, batch_sizes.append) == prepared_requests
    assert batch_sizes == [200, 50]
    assert [len(batch) for batch in queue.sent] == [200, 50, 50, 50]
    assert queue.sent[1] == queue.sent[2] == queue.sent[3]
    assert "the ledger fails, it is tried again: the ledger is unavailable" in capsys.readouterr().err


def test_a_long_outage_of_the_ledger_ends_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "_OUTAGE_TIMEOUT_SECONDS", 0.0)
    queue: Any = FlakyQueue(None, ledger_unavailable())
    started = Submitter(queue)
    with pytest.raises(
        LedgerUnavailable, match="200 of 250 requests were submitted, and it is unknown whether the next 50 were"
    ):
        started.submit(identified(250), lambda _: None)
    assert len(started.handles) == 200
    assert len(started.ambiguous_ids) == 50


def test_each_result_comes_once_through_outages_of_the_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    queue: Any = FlakyQueue(ledger_unavailable(), ledger_unavailable(), None, ledger_unavailable())
    found: list[TaskResult] = list(wait_for_results(queue, identified(6), None))
    assert [result.id for result in found] == [f"r{position}" for position in range(6)]
    assert "it is tried again" in capsys.readouterr().err


def test_a_ledger_that_fails_after_the_last_result_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class FailsAtTheEnd(FlakyQueue):
        def as_completed(self, handles: Sequence[Any], timeout: float | None) -> Iterator[Any]:
            yield from handles
            raise ledger_unavailable()

    queue: Any = FailsAtTheEnd()
    assert len(list(wait_for_results(queue, identified(3), None))) == 3
    assert capsys.readouterr().err == ""


def test_a_timeout_says_how_many_have_not_ended() -> None:
    class Slow(FlakyQueue):
        def as_completed(self, handles: Sequence[Any], timeout: float | None) -> Iterator[Any]:
            assert timeout is not None
            assert timeout <= 5
            yield handles[0]
            raise ResultTimeout

    queue: Any = Slow()
    results = wait_for_results(queue, identified(3), 5)
    assert next(results).id == "r0"
    with pytest.raises(ResultTimeout, match=r"^2 of 3 requests have not ended within 5 s$"):
        next(results)


def test_a_timeout_of_one_request_names_it() -> None:
    class Never(FlakyQueue):
        def as_completed(self, handles: Sequence[Any], timeout: float | None) -> Iterator[Any]:
            raise ResultTimeout

    queue: Any = Never()
    with pytest.raises(ResultTimeout, match=r"^r0 has not ended within 5 s$"):
        next(wait_for_results(queue, identified(1), 5))
