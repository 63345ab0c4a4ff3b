"""A small chaos run on a warm queue, for each way in which a server keeps what was confirmed.

`python -m tests.chaos --warm --tasks 1000` is the long one, with slow containers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.warm import WarmChaos, WarmChaosOptions

_TASKS = 16


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("durability", ["aof", "replica"])
def test_of_killed_runners_workers_and_servers_nothing_is_lost_or_started_twice(
    tmp_path: Path, durability: str
) -> None:
    options = WarmChaosOptions(
        directory=tmp_path,
        tasks=_TASKS,
        seed=7,
        workers=2,
        max_in_flight=4,
        kill_every=8.0,
        kill_runner_every=2.5,
        server_kills=1,
        provision_seconds=(0.2, 0.6),
        durability=durability,
    )
    with WarmChaos(options) as chaos:
        report = chaos.run(timeout=240.0)
    assert report.failures == []
    assert (report.results.total(), report.server_kills) == (_TASKS, 1)
    assert report.tasks < report.starts
    assert report.runner_kills > 0
