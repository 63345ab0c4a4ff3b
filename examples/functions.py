"""Functions that run in containers: the digits of pi by Monte Carlo, in as many parts as you like.

    eval "$(ecs-queue local env)" && python examples/functions.py 8

A container imports the function from this file, so the file must be in its image, and importable. On the local ECS,
whose containers are processes of this machine, they get this program's own path. docs/functions.md says what a
container needs.
"""

from __future__ import annotations

import os
import random
import sys
from dataclasses import dataclass

from ecs_queue import EcsExecutor, EcsQueue


@dataclass
class Sample:
    """How many of the points lie in the quarter circle."""

    points: int
    inside: int


def draw(points: int, seed: int) -> Sample:
    """Draw points in the unit square. Runs in a container."""
    if points <= 0:
        raise ValueError(f"expected points to draw, found {points}")
    rng = random.Random(seed)
    return Sample(points, sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(points)))


def estimate_pi(executor: EcsExecutor, parts: int, points: int) -> float:
    """Draw the points of all parts at the same time, and return pi."""
    samples = list(executor.map(draw, [points] * parts, range(parts), timeout=600))
    return 4 * sum(sample.inside for sample in samples) / sum(sample.points for sample in samples)


def main(parts: int) -> None:
    """Print pi, and what a failing call looks like."""
    with (
        EcsQueue.from_config() as queue,
        EcsExecutor(queue, environment={"PYTHONPATH": os.pathsep.join(sys.path)}, time_limit="10m") as executor,
    ):
        print(f"pi is about {estimate_pi(executor, parts, 100_000):.3f}")
        error = executor.submit(draw, 0, seed=1).exception()
        print(f"a call without points raised {type(error).__name__}: {error}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # The container imports the module by its name, which is not __main__.
    from functions import main as imported_main

    imported_main(int(sys.argv[1]))
