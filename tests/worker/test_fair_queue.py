"""The order in which jobs run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ecs_queue.worker.fair_queue import NO_QUEUE, FairQueue, Job, JobKind
from ecs_queue.worker.rate_limiter import RateLimit

ACCOUNT_A, ACCOUNT_B = RateLimit("run:here", 1.0, 1), RateLimit("run:there", 1.0, 1)


class FakeAdmission:
    """Queues in `shut` may start nothing."""

    def __init__(self) -> None:
        self.blocked: set[str] = set()
        self.launches: Counter[str] = Counter()

    def may_launch(self, queue: str) -> bool:
        return queue not in self.blocked

    def launch_started(self, queue: str) -> None:
        self.launches[queue] += 1


class FairQueueHarness:
    def __init__(self, **weights: float) -> None:
        self.admission = FakeAdmission()
        self.fair_queue = FairQueue(lambda queue: weights.get(queue, 1.0), self.admission)
        self.completed: list[str] = []

    def add(
        self,
        name: str,
        queue: str = "q",
        priority: int = 0,
        rate_limit: RateLimit | None = None,
        kind: JobKind = JobKind.MESSAGE,
    ) -> None:
        self.fair_queue.add(Job(lambda: self.completed.append(name), kind, queue, priority, rate_limit))

    def run(self, limit: int = 1000, spend: Callable[[RateLimit | None], bool] = lambda rate_limit: True) -> list[str]:
        """What runs next."""
        self.completed.clear()
        for _ in range(limit):
            job = self.fair_queue.pop(spend)
            if job is None:
                break
            job.run()
        return list(self.completed)


def test_a_flood_on_one_queue_leaves_the_others_their_turns() -> None:
    harness = FairQueueHarness()
    for index in range(100):
        harness.add(f"flood{index}", "flood")
    for index in range(3):
        harness.add(f"b{index}", "b")

    assert sorted(harness.run(6)) == ["b0", "b1", "b2", "flood0", "flood1", "flood2"]


def test_a_queue_gets_turns_by_its_weight() -> None:
    harness = FairQueueHarness(heavy=3)
    for index in range(100):
        for queue in ("heavy", "light"):
            harness.add(f"{queue}-{index}", queue)

    assert Counter(name.split("-")[0] for name in harness.run(80)) == {"heavy": 60, "light": 20}


def test_a_queue_that_was_empty_does_not_catch_up() -> None:
    harness = FairQueueHarness()
    for index in range(100):
        harness.add(f"a{index}", "a")
    harness.run(50)
    for index in range(50):
        harness.add(f"b{index}", "b")

    assert Counter(name[0] for name in harness.run(20)) == {"a": 10, "b": 10}


def test_within_a_queue_priority_goes_first_and_then_the_older() -> None:
    harness = FairQueueHarness()
    for name, priority in (("low", 0), ("high", 9), ("middle", 5), ("high too", 9)):
        harness.add(name, priority=priority)

    assert harness.run() == ["high", "high too", "middle", "low"]


def test_what_lacks_a_token_is_passed_over() -> None:
    harness = FairQueueHarness()
    harness.add("here", "a", rate_limit=ACCOUNT_A)
    harness.add("here too", "b", rate_limit=ACCOUNT_A)
    harness.add("there", "b", rate_limit=ACCOUNT_B)

    assert harness.run(spend=lambda rate_limit: rate_limit == ACCOUNT_B) == ["there"]
    assert harness.fair_queue.waiting_rate_limits() == {ACCOUNT_A: 2}


def test_a_queue_that_may_launch_nothing_is_passed_over_and_wants_no_tokens() -> None:
    harness = FairQueueHarness()
    harness.add("paused", "a", rate_limit=ACCOUNT_A)
    harness.add("b", "b")
    harness.admission.blocked.add("a")

    assert harness.run() == ["b"]
    assert harness.fair_queue.waiting_rate_limits() == {}
    assert harness.admission.launches == {"b": 1}
    harness.admission.blocked.clear()
    assert harness.run() == ["paused"]


def test_ambiguous_launches_of_a_paused_queue_go_on() -> None:
    harness = FairQueueHarness()
    harness.add("doubt", "a", kind=JobKind.RECOVER)
    harness.admission.blocked.add("a")

    assert harness.run() == ["doubt"]
    assert not harness.admission.launches


def test_stops_go_before_all_queues() -> None:
    harness = FairQueueHarness()
    for index in range(10):
        harness.add(f"a{index}", "a", priority=9)
    harness.run(5)
    harness.add("stop", NO_QUEUE, kind=JobKind.STOP)

    assert harness.run(1) == ["stop"]


def test_one_kind_of_a_queue_is_taken_out_in_its_order() -> None:
    harness = FairQueueHarness()
    for index, rate_limit in enumerate((ACCOUNT_A, ACCOUNT_B, ACCOUNT_A)):
        harness.add(f"m{index}", priority=index, rate_limit=rate_limit)
    harness.add("retry", kind=JobKind.RETRY)
    harness.add("other", "b")

    for job in harness.fair_queue.remove("q", JobKind.MESSAGE):
        job.run()

    assert harness.completed == ["m2", "m1", "m0"]
    assert (len(harness.fair_queue), harness.fair_queue.waiting("q", JobKind.MESSAGE)) == (2, 0)
    assert sorted(harness.run()) == ["other", "retry"]


def test_everything_is_taken_out() -> None:
    harness = FairQueueHarness()
    harness.add("a")
    harness.add("b", "b", rate_limit=ACCOUNT_A)

    assert len(harness.fair_queue.clear()) == 2
    assert len(harness.fair_queue) == 0
    assert harness.run() == []
