"""Whose turn it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ecs_queue.launcher.lanes import NO_QUEUE, Job, JobKind, Lanes
from ecs_queue.launcher.quota import Permit

HERE, THERE = Permit("run:here", 1.0, 1), Permit("run:there", 1.0, 1)


class Gate:
    """Queues in `shut` may start nothing."""

    def __init__(self) -> None:
        self.shut: set[str] = set()
        self.begun: Counter[str] = Counter()

    def may_launch(self, queue: str) -> bool:
        return queue not in self.shut

    def started(self, queue: str) -> None:
        self.begun[queue] += 1


class Bench:
    def __init__(self, **weights: float) -> None:
        self.gate = Gate()
        self.lanes = Lanes(lambda queue: weights.get(queue, 1.0), self.gate)
        self.ran: list[str] = []

    def add(
        self,
        name: str,
        queue: str = "q",
        priority: int = 0,
        permit: Permit | None = None,
        kind: JobKind = JobKind.MESSAGE,
    ) -> None:
        self.lanes.add(Job(lambda: self.ran.append(name), kind, queue, priority, permit))

    def run(self, most: int = 1000, spend: Callable[[Permit | None], bool] = lambda permit: True) -> list[str]:
        """What runs next."""
        self.ran.clear()
        for _ in range(most):
            job = self.lanes.pop(spend)
            if job is None:
                break
            job.run()
        return list(self.ran)


def test_a_flood_on_one_queue_leaves_the_others_their_turns() -> None:
    bench = Bench()
    for index in range(100):
        bench.add(f"flood{index}", "flood")
    for index in range(3):
        bench.add(f"b{index}", "b")

    assert sorted(bench.run(6)) == ["b0", "b1", "b2", "flood0", "flood1", "flood2"]


def test_a_queue_gets_turns_by_its_weight() -> None:
    bench = Bench(heavy=3)
    for index in range(100):
        for queue in ("heavy", "light"):
            bench.add(f"{queue}-{index}", queue)

    assert Counter(name.split("-")[0] for name in bench.run(80)) == {"heavy": 60, "light": 20}


def test_a_queue_that_was_empty_does_not_catch_up() -> None:
    bench = Bench()
    for index in range(100):
        bench.add(f"a{index}", "a")
    bench.run(50)
    for index in range(50):
        bench.add(f"b{index}", "b")

    assert Counter(name[0] for name in bench.run(20)) == {"a": 10, "b": 10}


def test_within_a_queue_priority_goes_first_and_then_the_older() -> None:
    bench = Bench()
    for name, priority in (("low", 0), ("high", 9), ("middle", 5), ("high too", 9)):
        bench.add(name, priority=priority)

    assert bench.run() == ["high", "high too", "middle", "low"]


def test_what_lacks_a_token_is_passed_over() -> None:
    bench = Bench()
    bench.add("here", "a", permit=HERE)
    bench.add("here too", "b", permit=HERE)
    bench.add("there", "b", permit=THERE)

    assert bench.run(spend=lambda permit: permit == THERE) == ["there"]
    assert bench.lanes.lacking() == {HERE: 2}


def test_a_queue_that_may_launch_nothing_is_passed_over_and_wants_no_tokens() -> None:
    bench = Bench()
    bench.add("paused", "a", permit=HERE)
    bench.add("b", "b")
    bench.gate.shut.add("a")

    assert bench.run() == ["b"]
    assert bench.lanes.lacking() == {}
    assert bench.gate.begun == {"b": 1}
    bench.gate.shut.clear()
    assert bench.run() == ["paused"]


def test_launches_in_doubt_of_a_paused_queue_go_on() -> None:
    bench = Bench()
    bench.add("doubt", "a", kind=JobKind.RECOVER)
    bench.gate.shut.add("a")

    assert bench.run() == ["doubt"]
    assert not bench.gate.begun


def test_stops_go_before_all_queues() -> None:
    bench = Bench()
    for index in range(10):
        bench.add(f"a{index}", "a", priority=9)
    bench.run(5)
    bench.add("stop", NO_QUEUE, kind=JobKind.STOP)

    assert bench.run(1) == ["stop"]


def test_one_kind_of_a_queue_is_taken_out_in_its_order() -> None:
    bench = Bench()
    for index, permit in enumerate((HERE, THERE, HERE)):
        bench.add(f"m{index}", priority=index, permit=permit)
    bench.add("retry", kind=JobKind.RETRY)
    bench.add("other", "b")

    for job in bench.lanes.remove("q", JobKind.MESSAGE):
        job.run()

    assert bench.ran == ["m2", "m1", "m0"]
    assert (len(bench.lanes), bench.lanes.waiting("q", JobKind.MESSAGE)) == (2, 0)
    assert sorted(bench.run()) == ["other", "retry"]


def test_everything_is_taken_out() -> None:
    bench = Bench()
    bench.add("a")
    bench.add("b", "b", permit=HERE)

    assert len(bench.lanes.clear()) == 2
    assert len(bench.lanes) == 0
    assert bench.run() == []
