"""clientToken idempotency against a simple model of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ecs_queue.local.ecs.aws_json import ApiError
from ecs_queue.local.ecs.client_tokens import ClientTokenStore

DAY, HOUR = 86400.0, 3600.0
FAILURE = {"arn": "cluster", "reason": "RESOURCE:CPU"}

clusters = st.sampled_from(["a", "b"])
names = st.sampled_from(["t", "u"])
digests = st.sampled_from([b"1", b"2"])


class RecordedCall:
    """What the model stores about one call."""

    def __init__(self, digest: bytes, arns: tuple[str, ...], at: float) -> None:
        self.digest = digest
        self.arns = arns
        self.at = at
        self.running = set(arns)
        self.ended_at = at

    def known_until(self) -> float:
        return self.at + DAY if self.running else min(self.at + DAY, self.ended_at + HOUR)


class ClientTokenMachine(RuleBasedStateMachine):
    """Calls, stops and passing time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ClientTokenStore(DAY, HOUR)
        self.now = 0.0
        self.made = 0
        self.calls: dict[tuple[str, str], RecordedCall] = {}
        self.alive: list[tuple[str, str, str, RecordedCall]] = []

    @rule(cluster=clusters, token=names, digest=digests, count=st.integers(0, 3))
    def run_task(self, cluster: str, token: str, digest: bytes, count: int) -> None:
        known = self.calls.get((cluster, token))
        if known is not None and known.known_until() <= self.now:
            known = None
        if known is not None and known.digest != digest:
            with pytest.raises(ApiError) as caught:
                self.store.find(cluster, token, digest, self.now)
            assert caught.value.code == "ConflictException"
            assert caught.value.members["resourceIds"] == list(known.arns)
            return
        entry = self.store.find(cluster, token, digest, self.now)
        if known is not None:
            assert entry is not None
            assert entry.arns == known.arns
            assert bool(entry.failures) == (not known.arns)
            return
        assert entry is None
        arns = tuple(f"arn-{self.made + number}" for number in range(count))
        self.made += count
        failures: tuple[dict[str, str], ...] = () if arns else (FAILURE,)
        self.store.add(cluster, token, digest, arns, failures, self.now)
        call = self.calls[cluster, token] = RecordedCall(digest, arns, self.now)
        self.alive += [(cluster, token, arn, call) for arn in arns]

    @rule(data=st.data())
    def a_task_stops(self, data: Any) -> None:
        if self.alive:
            index = data.draw(st.integers(0, len(self.alive) - 1))
            cluster, token, arn, call = self.alive.pop(index)
            call.running.discard(arn)
            call.ended_at = self.now
            self.store.task_stopped(cluster, token, arn, self.now)

    @rule(seconds=st.sampled_from([1.0, HOUR - 1, HOUR, DAY - HOUR, DAY]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def expired_tokens_are_deleted(self) -> None:
        assert len(self.store) <= 4


TestTokens = ClientTokenMachine.TestCase
TestTokens.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_failure_is_stored_for_an_hour() -> None:
    store = ClientTokenStore(DAY, HOUR)
    store.add("a", "t", b"1", (), (FAILURE,), now=0.0)
    entry = store.find("a", "t", b"1", HOUR - 1)
    assert entry is not None
    assert entry.failures == (FAILURE,)
    assert store.find("a", "t", b"1", HOUR) is None
    assert len(store) == 0


def test_a_token_expires_after_the_stop_of_its_last_task() -> None:
    store = ClientTokenStore(DAY, HOUR)
    store.add("a", "t", b"1", ("x", "y"), (), now=0.0)
    store.task_stopped("a", "t", "x", 10.0)
    assert store.find("a", "t", b"1", 10.0 + HOUR) is not None
    store.task_stopped("a", "t", "y", 10.0 + HOUR)
    assert store.find("a", "t", b"1", 10.0 + 2 * HOUR) is None


def test_the_end_of_a_task_does_not_touch_a_token_that_was_used_again_since() -> None:
    store = ClientTokenStore(DAY, HOUR)
    store.add("a", "t", b"1", ("old",), (), now=0.0)
    assert store.find("a", "t", b"2", DAY) is None
    store.add("a", "t", b"2", ("new",), (), now=DAY)
    store.task_stopped("a", "t", "old", DAY + 1)
    entry = store.find("a", "t", b"2", 2 * DAY - 1)
    assert entry is not None
    assert entry.arns == ("new",)
