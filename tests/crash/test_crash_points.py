"""At every named step a real process dies; others go on, and nothing is lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecs_queue.crashpoints import POINTS
from ecs_queue.local.redis_server import RedisServer
from tests.crash.bench import Bench
from tests.crash.scenarios import SCENARIOS


@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_dies_here_loses_and_doubles_nothing(
    point: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    scenario = SCENARIOS[point]
    with Bench(redis_server.url, tmp_path, scenario.ecs, scenario.settings) as bench:
        scenario.play(bench, point)
        assert scenario.finish(bench) == scenario.ends
