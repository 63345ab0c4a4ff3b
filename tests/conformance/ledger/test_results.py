"""After the end: delivery, adoption, confirmation, retention."""

from __future__ import annotations

import pytest

from ecs_queue.core.protocol import Word
from ecs_queue.core.states import State
from ecs_queue.ledger.retention import CLOCK_SKEW, Retention
from tests.conformance.ledger.conftest import MakeLab
from tests.conformance.ledger.lab import DAY, HOUR, START, Lab, submission


def _waiting(lab: Lab, owner: str = "airflow") -> list[str]:
    return [record.id for record in lab.ledger.undelivered(owner, 100)]


def test_results_wait_for_their_owner_oldest_first(lab: Lab) -> None:
    for name in ("late", "early", "other"):
        lab.launched(name, arn=f"arn:{name}", owner="bench" if name == "other" else "airflow")
    for name, at in (("late", 50), ("early", 40), ("other", 45)):
        lab.outcome(lab.record(name), end=State.SUCCESS, exit_code=0, finished_at=START + at)
    assert _waiting(lab) == ["early", "late"]
    assert _waiting(lab, "bench") == ["other"]
    assert [record.id for record in lab.ledger.undelivered("airflow", 1)] == ["early"]
    assert lab.ledger.undelivered("airflow", 10) == [lab.record("early"), lab.record("late")]


def test_a_result_that_nobody_waits_for_is_not_undelivered(lab: Lab) -> None:
    assert not lab.ended(owner="").undelivered
    assert _waiting(lab, "") == []


def test_a_confirmed_result_is_delivered(lab: Lab) -> None:
    lab.ended()
    lab.advance(5)
    assert [answer.word for answer in lab.ledger.confirm([("job", "nonce-01")], "airflow")] == [Word.OK]
    record = lab.record()
    assert (record.undelivered, record.confirmed_at) == (False, START + 5)
    assert _waiting(lab) == []


def test_a_confirmation_may_come_twice(lab: Lab) -> None:
    lab.ended()
    lab.ledger.confirm([("job", "nonce-01")], "airflow")
    lab.advance(5)
    assert lab.ledger.confirm([("job", "nonce-01")], "airflow")[0].word is Word.OK
    assert lab.record().confirmed_at == START


def test_only_the_owner_of_this_very_result_can_confirm_it(lab: Lab) -> None:
    before = lab.ended()
    lab.launched("live", arn="arn:live")
    pairs = [("job", "nonce-02"), ("nobody", "nonce-01"), ("live", "nonce-01")]
    assert {answer.word for answer in lab.ledger.confirm(pairs, "airflow")} == {Word.NOT_YOURS}
    assert lab.ledger.confirm([("job", "nonce-01")], "bench")[0].word is Word.NOT_YOURS
    assert lab.record() == before


def test_adoption_delivers_a_finished_result_again_to_the_new_owner(lab: Lab) -> None:
    lab.ended()
    lab.ledger.confirm([("job", "nonce-01")], "airflow")
    answer = lab.ledger.adopt(["job"], "bench")[0]
    assert answer.word is Word.ENDED
    assert answer.record == lab.record()
    record = lab.record()
    assert (record.owner, record.undelivered, record.confirmed_at) == ("bench", True, 0.0)
    assert (_waiting(lab), _waiting(lab, "bench")) == ([], ["job"])


def test_a_late_confirmation_of_the_old_owner_is_refused(lab: Lab) -> None:
    lab.ended()
    lab.ledger.adopt(["job"], "bench")
    assert lab.ledger.confirm([("job", "nonce-01")], "airflow")[0].word is Word.NOT_YOURS
    assert _waiting(lab, "bench") == ["job"]
    assert lab.ledger.confirm([("job", "nonce-01")], "bench")[0].word is Word.OK


def test_adoption_by_the_same_owner_arms_the_delivery_again(lab: Lab) -> None:
    lab.ended()
    lab.ledger.confirm([("job", "nonce-01")], "airflow")
    lab.ledger.adopt(["job"], "airflow")
    assert _waiting(lab) == ["job"]


def test_the_result_of_an_adopted_live_record_goes_to_the_new_owner(lab: Lab) -> None:
    lab.launched()
    answer = lab.ledger.adopt(["job"], "bench")[0]
    assert answer.word is Word.OK
    assert answer.record is not None
    assert answer.record.state is State.LAUNCHED
    lab.outcome(lab.record(), end=State.SUCCESS)
    assert (_waiting(lab), _waiting(lab, "bench")) == ([], ["job"])


def test_adoption_of_several_is_answered_in_order_and_unknown_ones_are_missing(lab: Lab) -> None:
    lab.ended("done")
    lab.queued("waiting")
    answers = lab.ledger.adopt(["waiting", "nobody", "done"], "bench")
    assert [answer.word for answer in answers] == [Word.OK, Word.MISSING, Word.ENDED]


def test_an_adopted_tombstone_keeps_its_new_owner_when_the_request_arrives(lab: Lab) -> None:
    lab.stop()
    lab.ledger.adopt(["job"], "bench")
    lab.ledger.put([submission()])
    assert (_waiting(lab), _waiting(lab, "bench")) == ([], ["job"])


@pytest.fixture
def short(make_lab: MakeLab) -> Lab:
    """Results are kept an hour, and unconfirmed ones two days."""
    return make_lab(retention=Retention(seconds=HOUR, unconfirmed_cap=2 * DAY))


def test_a_confirmed_result_is_kept_while_a_late_duplicate_could_still_come(short: Lab) -> None:
    short.ended()
    short.ledger.confirm([("job", "nonce-01")], "airflow")
    short.advance(DAY + CLOCK_SKEW - 0.125)
    assert short.ledger.put([submission()])[0].word is Word.SAME
    short.advance(0.125)
    assert short.ledger.get(["job"]) == [None]
    assert short.ledger.put([submission()])[0].word is Word.TOO_LATE


def test_a_confirmed_result_is_kept_for_the_retention_time(short: Lab) -> None:
    short.ended(accept_until=START + 1)
    short.advance(100)
    short.ledger.confirm([("job", "nonce-01")], "airflow")
    short.advance(HOUR - 0.125)
    assert short.state() is State.SUCCESS
    short.advance(0.125)
    assert short.ledger.get(["job"]) == [None]


def test_a_result_that_is_never_confirmed_is_kept_to_the_cap(short: Lab) -> None:
    short.ended(accept_until=START + 1)
    short.advance(2 * DAY - 0.125)
    assert _waiting(short) == ["job"]
    short.advance(0.125)
    assert _waiting(short) == []
    assert short.ledger.adopt(["job"], "bench")[0].word is Word.MISSING
    assert short.ledger.confirm([("job", "nonce-01")], "airflow")[0].word is Word.NOT_YOURS


def test_adoption_starts_the_time_of_a_result_again(short: Lab) -> None:
    short.ended(accept_until=START + 1, owner="")
    short.advance(HOUR - 1)
    short.ledger.adopt(["job"], "bench")
    short.advance(2 * DAY - 1)
    assert _waiting(short, "bench") == ["job"]


def test_a_duplicate_does_not_lengthen_the_life_of_a_result(short: Lab) -> None:
    short.ended(accept_until=START + 1)
    short.ledger.confirm([("job", "nonce-01")], "airflow")
    short.advance(HOUR - 1)
    short.ledger.put([submission(accept_until=START + DAY)])
    short.advance(1)
    assert short.ledger.get(["job"]) == [None]


def test_a_tombstone_outlives_every_message_that_it_may_be_meant_for(short: Lab) -> None:
    short.stop()
    short.advance(DAY + CLOCK_SKEW - 0.125)
    assert short.ledger.put([submission(accept_until=START + 3 * DAY)])[0].word is Word.ENDED


def test_after_the_retention_an_id_is_free_for_another_request(short: Lab) -> None:
    short.ended(accept_until=START + 1, owner="")
    short.advance(HOUR)
    assert short.ledger.put([submission(digest="e" * 32, nonce="nonce-02")])[0].word is Word.CREATED
    assert short.ledger.prune(10) == 0
    record = short.record()
    assert (record.state, record.nonce, record.arn, record.attempts) == (State.QUEUED, "nonce-02", "", 0)
    assert short.ledger.page("", 10)[0] == [record]


def test_a_live_record_is_never_forgotten(short: Lab) -> None:
    short.launched(accept_until=START + 1)
    short.advance(400 * DAY)
    assert short.ledger.prune(10) == 0
    assert short.state() is State.LAUNCHED


def test_prune_drops_what_is_over_up_to_the_limit(short: Lab) -> None:
    for name in ("one", "two", "three"):
        short.ended(name, accept_until=START + 1, owner="")
    short.ended("kept", accept_until=START + 3 * DAY, owner="")
    short.advance(HOUR)
    assert [short.ledger.prune(2), short.ledger.prune(2), short.ledger.prune(2)] == [2, 1, 0]
    assert short.state("kept") is State.SUCCESS
