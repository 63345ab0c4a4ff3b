"""The server that has the namespace's keys fails over in the middle of work: in a cluster, and behind a Sentinel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from ecs_queue.client.handle import Handle
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.server_keys import ledger_prefix, namespace_prefix
from tests.faults.harness import FaultHarness
from tests.replicated_servers import SentinelDeployment, ValkeyCluster
from tests.wait import wait_until

pytestmark = pytest.mark.slow

#: The namespace of the harness.
_KEY = namespace_prefix("ecs-queue")
_SHORT = {"socket_timeout_seconds": 1, "lease_seconds": 2, "visibility_timeout": 2}
_NAMES = [f"r{number}" for number in range(60)]


@pytest.fixture(params=["cluster", "sentinel"])
def deployment(request: pytest.FixtureRequest) -> ValkeyCluster | SentinelDeployment:
    found: ValkeyCluster | SentinelDeployment = request.getfixturevalue(request.param)
    return found


def _submit(harness: FaultHarness, names: Sequence[str]) -> list[Handle]:
    """Submit as a caller does: again with the same ids after an error."""
    handles: list[Handle] = []

    def try_to_submit() -> bool:
        with suppress(LedgerUnavailable, BrokerUnavailable):
            handles.extend(harness.queue.submit_many([{"id": name, "command": ["true"]} for name in names]))
        return bool(handles)

    wait_until(try_to_submit, "the requests are accepted")
    return handles


def _begin(harness: FaultHarness) -> list[Handle]:
    """Begin to work: some requests are launched, others are on their way."""
    harness.start_worker()
    harness.start_worker()
    handles = _submit(harness, _NAMES[:30])
    wait_until(lambda: len(harness.ecs.tasks) >= 5, "some tasks are launched")
    return handles


def _finish(harness: FaultHarness, handles: list[Handle]) -> None:
    """Submit the other requests, and check that each has one task and one result."""
    handles = handles[:30] + _submit(harness, _NAMES[30:])  # the same requests, if they were submitted before
    with ThreadPoolExecutor(1) as thread:
        results = thread.submit(lambda: list(harness.queue.as_completed(handles, 60.0)))

        def have_ended() -> bool:
            harness.end_all_tasks()
            return results.done()

        wait_until(have_ended, "all requests end")
    assert sorted((result.id, result.state) for result in results.result()) == sorted(
        (name, "SUCCESS") for name in _NAMES
    )
    started = [value for value in harness.started_by_values() if "/first/" not in value]
    assert len(started) == len(set(started)) == len(_NAMES)


@pytest.mark.parametrize("durability", ["aof", "replica"])
def test_a_planned_fail_over_of_a_cluster_loses_and_doubles_nothing(
    cluster: ValkeyCluster,
    make_harness: Callable[..., FaultHarness],
    caplog: pytest.LogCaptureFixture,
    durability: str,
) -> None:
    harness = make_harness(cluster.url, durability=durability, **_SHORT)
    handles = _begin(harness)
    cluster.fail_over(_KEY)
    cluster.wait_until_stable()
    with caplog.at_level("WARNING"):
        handles += harness.queue.submit_many([{"id": name, "command": ["true"]} for name in _NAMES[30:]])
    assert "not published" not in caplog.text  # a client that was idle follows without an error
    _finish(harness, handles)


@pytest.mark.parametrize("move", [ValkeyCluster.move_slot, ValkeyCluster.move_slot_at_once])
def test_a_slot_that_moves_under_work_loses_and_doubles_nothing(
    cluster: ValkeyCluster, make_harness: Callable[..., FaultHarness], move: Callable[[ValkeyCluster, str], None]
) -> None:
    harness = make_harness(cluster.url, durability="replica", **_SHORT)
    handles = _begin(harness)
    move(cluster, _KEY)
    _finish(harness, handles)


def test_a_planned_fail_over_by_a_sentinel_loses_and_doubles_nothing(
    sentinel: SentinelDeployment, make_harness: Callable[..., FaultHarness]
) -> None:
    """The former primary takes writes until the Sentinel makes it a replica: they are lost, and no claim is durable."""
    harness = make_harness(sentinel.url, durability="replica", **_SHORT)
    handles = _begin(harness)
    sentinel.fail_over()
    _finish(harness, handles)


def test_a_killed_primary_that_restarts_after_the_fail_over_loses_and_doubles_nothing(
    deployment: ValkeyCluster | SentinelDeployment, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(deployment.url, durability="replica", **_SHORT)
    handles = _begin(harness)
    killed = deployment.kill_owner(_KEY) if isinstance(deployment, ValkeyCluster) else deployment.kill_primary()
    wait_until(lambda: harness.service_failures(""), "the workers have noticed")
    deployment.wait_until_stable()
    killed.start()  # it takes writes at first, and without a replica nothing is launched
    _submit(harness, ["first"])  # over a connection that died while it was idle
    primary = deployment.owner(_KEY) if isinstance(deployment, ValkeyCluster) else deployment.primary()
    assert deployment.client(primary).exists(f"{ledger_prefix('ecs-queue')}r:first")
    _finish(harness, handles)
    deployment.wait_until_stable()


def test_a_primary_that_freezes_and_wakes_after_the_fail_over_loses_and_doubles_nothing(
    sentinel: SentinelDeployment, make_harness: Callable[..., FaultHarness]
) -> None:
    """Its connections are open, and it takes writes again until the Sentinel makes it a replica."""
    harness = make_harness(sentinel.url, durability="replica", **_SHORT)
    handles = _begin(harness)
    frozen = sentinel.primary()
    with sentinel.frozen(frozen):
        wait_until(lambda: sentinel.primary() is not frozen, "the replica has taken over")
    _finish(harness, handles)
    sentinel.wait_until_stable()
