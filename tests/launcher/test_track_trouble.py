"""Following tasks that ECS does not show, or does not show in time."""

from __future__ import annotations

import pytest

from ecs_queue.core.answers import ReadTrouble
from ecs_queue.core.envelope import decode_request
from ecs_queue.core.protocol import ClaimOffer
from ecs_queue.core.states import State
from ecs_queue.launcher.draft import draft_of
from tests.launcher.fake_ecs import DENIED, GONE, THROTTLED
from tests.launcher.lab import Lab

GRACE = 600.0


@pytest.fixture
def lab() -> Lab:
    return Lab()


def _launch_many(lab: Lab, number: int) -> None:
    for index in range(number):
        lab.launched(f"t{index}")


class TestMissing:
    def test_inside_the_grace_time_it_writes_nothing(self, lab: Lab) -> None:
        arn = lab.launched()
        before = lab.record()
        lab.ecs.hidden.add(arn)

        lab.pass_time(GRACE - 20, step=5)

        assert lab.record() == before
        assert not lab.published

    def test_beyond_the_grace_time_it_is_unknown_and_never_started_again(self, lab: Lab) -> None:
        lab.ecs.hidden.add(lab.launched(relaunch="any_failure"))

        lab.pass_time(GRACE + 60, step=5)

        assert lab.state() is State.UNKNOWN
        assert lab.published == [lab.record()]
        assert len(lab.ecs.calls) == 1

    def test_a_task_that_shows_up_in_time_is_followed(self, lab: Lab) -> None:
        arn = lab.launched()
        lab.ecs.hidden.add(arn)
        lab.pass_time(GRACE / 2, step=5)

        lab.ecs.hidden.clear()
        lab.ecs.end(arn)
        lab.pass_time(15)

        assert lab.state() is State.SUCCESS

    def test_a_look_that_missed_it_long_ago_does_not_count_when_others_have_seen_it_since(self, lab: Lab) -> None:
        """This worker's first look was too early; then another one followed the task for long."""
        arn = lab.launched()
        lab.ecs.hidden.add(arn)
        lab.later(1)
        lab.ecs.hidden.clear()
        other, mine = lab.new_worker(), lab.worker
        lab.worker = other
        lab.pass_time(2 * GRACE, step=10)

        lab.worker = mine
        lab.ecs.hidden.add(arn)
        lab.pass_time(60, step=5)

        assert lab.state() is State.LAUNCHED

    def test_a_cluster_that_is_gone_counts_as_missing(self, lab: Lab) -> None:
        lab.launched()
        lab.ecs.read_trouble = GONE

        lab.pass_time(6 * GRACE - 20, step=5)  # bad credentials may look the same, so it gets more time
        assert lab.state() is State.LAUNCHED
        assert lab.worker.circuits.health() == f"default: {GONE.reason}"
        lab.pass_time(60, step=5)

        assert lab.state() is State.UNKNOWN
        assert GONE.reason in lab.record().reason


class TestTrouble:
    @pytest.mark.parametrize("trouble", [THROTTLED, DENIED], ids=["throttled", "denied"])
    def test_a_failed_describe_keeps_everything_as_it_is(self, lab: Lab, trouble: ReadTrouble) -> None:
        arn = lab.launched()
        lab.ecs.end(arn)
        lab.ecs.read_trouble = trouble
        lab.pass_time(2 * GRACE, step=10)
        assert lab.state() is State.LAUNCHED

        lab.ecs.read_trouble = None
        lab.pass_time(70, step=1)

        assert lab.state() is State.SUCCESS

    def test_one_bad_arn_does_not_hide_the_others_of_its_batch(self, lab: Lab) -> None:
        _launch_many(lab, 20)
        bad = lab.record("t7").arn
        for arn in lab.ecs.tasks:
            lab.ecs.end(arn)
        lab.ecs.bad_arns.add(bad)

        lab.later(1)

        states = {lab.state(f"t{index}") for index in range(20) if index != 7}
        assert states == {State.SUCCESS}
        assert lab.state("t7") is State.LAUNCHED

    def test_a_task_that_nobody_can_read_does_not_hide_the_others(self, lab: Lab) -> None:
        _launch_many(lab, 3)
        for arn in lab.ecs.tasks:
            lab.ecs.end(arn)
        lab.ecs.tasks[lab.record("t1").arn]["containers"] = 5

        lab.later(1)

        assert [lab.state(f"t{index}") for index in range(3)] == [State.SUCCESS, State.LAUNCHED, State.SUCCESS]
        assert lab.worker.told("describe.trouble")

    def test_an_envelope_of_a_newer_version_is_followed_by_an_older_worker(self, lab: Lab) -> None:
        lab.ecs.end(lab.launched())
        lab.memory._records["a"].request = b'{"kind": "request", "v": 99}'
        lab.worker = lab.new_worker()

        lab.later(1)

        assert lab.state() is State.SUCCESS

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_ledger_that_fails_at_the_outcome_loses_nothing(self, lab: Lab, when: str) -> None:
        lab.ecs.end(lab.launched())
        lab.clock.advance(1)
        lab.ledger.fail("outcomes", when)
        with pytest.raises(Exception, match="ledger"):
            lab.worker.track()

        lab.pass_time(31)

        assert lab.state() is State.SUCCESS


class TestBatches:
    def test_a_hundred_tasks_a_call(self, lab: Lab) -> None:
        _launch_many(lab, 250)

        lab.later(1)

        assert [len(batch) for batch in lab.ecs.described] == [100, 100, 50]

    def test_the_quota_of_describes_is_kept_and_the_rest_looked_at_later(self) -> None:
        lab = Lab(describe_tasks_rate=1, describe_tasks_burst=1)
        _launch_many(lab, 500)
        for arn in lab.ecs.tasks:
            lab.ecs.end(arn)

        lab.later(1)
        assert len(lab.ecs.described) == 1
        lab.pass_time(20)

        assert len(lab.ecs.described) <= 22
        assert {lab.state(f"t{index}") for index in range(500)} == {State.SUCCESS}

    def test_finding_a_bad_arn_keeps_the_quota_too(self) -> None:
        lab = Lab(describe_tasks_rate=1, describe_tasks_burst=3)
        _launch_many(lab, 100)
        lab.ecs.bad_arns.add(lab.record("t7").arn)

        lab.later(1)

        assert len(lab.ecs.described) == 3

    def test_tasks_of_different_clusters_are_asked_for_apart(self, lab: Lab) -> None:
        lab.launched("here")
        from ecs_queue.ecs.clients import Target

        lab.worker.target_for = lambda queue: Target("eu-west-1", None, "arn:aws:iam::1:role/r", "there")
        lab.launched("there")

        lab.later(1)

        assert sorted(len(batch) for batch in lab.ecs.described) == [1, 1]

    def test_launches_in_doubt_beyond_the_room_come_again_soon_and_pile_up_nowhere(self, lab: Lab) -> None:
        """After an outage of ECS there are many of them."""
        for index in range(50):
            lab.put(f"d{index}")
            offer = _offer(lab, f"d{index}")
            lab.memory.claim(f"d{index}", offer)
            lab.memory.unsure(f"d{index}", offer.claim, 0.0, "a time-out")
        lab.worker.slots.full = True

        lab.pass_time(200, step=5)
        assert lab.worker.slots.kept == lab.config.concurrency
        lab.worker.slots.run_kept()
        lab.pass_time(60, step=1)

        assert {lab.state(f"d{index}") for index in range(50)} == {State.LAUNCHED}
        assert len(lab.ecs.tasks) == 50


def _offer(lab: Lab, record_id: str) -> ClaimOffer:
    draft = draft_of(lab.worker.parts, decode_request(lab.record(record_id).request), "", 1)
    assert draft is not None
    return draft.offer(lab.worker.parts)


class TestMemory:
    def test_what_other_workers_follow_is_forgotten_even_while_there_is_always_something_due(self, lab: Lab) -> None:
        _launch_many(lab, 50)
        lab.ecs.hidden.update(list(lab.ecs.tasks)[:10])
        lab.later(1)
        for index in range(50):
            lab.memory.stop([f"t{index}"], "x")
        mine, lab.worker = lab.worker, lab.new_worker()
        lab.ecs.hidden.clear()
        lab.pass_time(30)
        assert {lab.state(f"t{index}") for index in range(50)} == {State.REVOKED}

        lab.worker = mine
        lab.launched("busy")
        lab.pass_time(2 * GRACE, step=1)

        assert len(mine.parts.in_flight) == 1
        assert len(mine.tracker._missing) == 0
