"""The simulation would notice: each guard of the protocol is turned off alone, and something must be found."""

from __future__ import annotations

import re

import pytest

from tests.simulation.__main__ import replay_command
from tests.simulation.disabled_rules import PROTOCOL_RULES, disable_rule
from tests.simulation.simulation import simulate

#: Seeds in which a broken guard must show; the rarest shows about once in a hundred.
_MAX_SEEDS = 1500
#: Without its guard many a simulation would never end.
_MAX_STEPS = 100_000


def test_the_most_important_rules_are_among_them() -> None:
    """No clientToken, ack before the ARN, no sweep, results without deduplication, no lease."""
    assert {
        "new_token_for_every_call",
        "ack_before_arn_is_stored",
        "no_sweeper",
        "no_result_deduplication",
        "no_lease",
    } <= PROTOCOL_RULES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PROTOCOL_RULES))
def test_a_disabled_rule_is_noticed(name: str) -> None:
    rule = PROTOCOL_RULES[name]
    with disable_rule(name):
        for seed in range(_MAX_SEEDS):
            found = simulate(seed, faults=rule.faults, max_steps=_MAX_STEPS).violations
            if found:
                assert re.search(rule.expected_violation, found[0]), (
                    f"{found[0]}\nreplay it: {replay_command(seed, name)}"
                )
                return
    pytest.fail(f"{_MAX_SEEDS} seeds have not noticed it")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, rule in PROTOCOL_RULES.items() if rule.faults])
def test_the_same_faults_do_no_harm_while_the_rule_holds(name: str) -> None:
    for seed in range(20):
        assert simulate(seed, faults=PROTOCOL_RULES[name].faults).violations == []
