"""The simulation would notice: each guard of the protocol is turned off alone, and something must be found."""

from __future__ import annotations

import re

import pytest

from tests.simulation.__main__ import replay_command
from tests.simulation.broken import GUARDS, broken
from tests.simulation.world import simulate

#: Seeds in which a broken guard must show; the rarest shows about once in a hundred.
_MOST_SEEDS = 1500
#: Without its guard many a simulation would never end.
_MOST_STEPS = 100_000


def test_the_guards_that_everything_stands_on_are_among_them() -> None:
    """No clientToken, ack before the ARN, no sweep, results without deduplication, no lease."""
    assert {
        "a_new_token_for_every_call",
        "acknowledged_before_the_arn_is_kept",
        "no_sweep",
        "results_handed_over_each_time_they_arrive",
        "no_lease",
    } <= GUARDS.keys()


@pytest.mark.parametrize("name", list(GUARDS))
def test_a_broken_guard_is_noticed(name: str) -> None:
    guard = GUARDS[name]
    with broken(name):
        for seed in range(_MOST_SEEDS):
            found = simulate(seed, mix=guard.faults, most_steps=_MOST_STEPS).findings
            if found:
                assert re.search(guard.shows, found[0]), f"{found[0]}\nreplay it: {replay_command(seed, name)}"
                return
    pytest.fail(f"{_MOST_SEEDS} seeds have not noticed it")


@pytest.mark.parametrize("name", [name for name, guard in GUARDS.items() if guard.faults])
def test_the_same_faults_do_no_harm_while_the_guard_is_there(name: str) -> None:
    for seed in range(20):
        assert simulate(seed, mix=GUARDS[name].faults).findings == []
