"""Each rule of the protocol is disabled alone, and the simulation must find a violation."""

from __future__ import annotations

import re

import pytest

from tests.simulation.__main__ import replay_command
from tests.simulation.disabled_rules import PROTOCOL_RULES, disable_rule
from tests.simulation.simulation import simulate

#: Seeds within which a disabled rule must show; the rarest shows about once in a hundred.
_MAX_SEEDS = 1500
#: With a disabled rule, some simulations would never end.
_MAX_STEPS = 100_000
#: One rule for each different faults and policies: without a disabled rule, those of others are the same simulations.
_RULES_WITH_OWN_FAULTS = list(
    {(rule.faults, rule.policies): name for name, rule in PROTOCOL_RULES.items() if rule.faults}.values()
)


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
            violations = simulate(seed, faults=rule.faults, policies=rule.policies, max_steps=_MAX_STEPS).violations
            if violations:
                assert re.search(rule.expected_violation, violations[0]), (
                    f"{violations[0]}\nreplay it: {replay_command(seed, name)}"
                )
                return
    pytest.fail(f"{_MAX_SEEDS} seeds found no violation")


@pytest.mark.slow
@pytest.mark.parametrize("name", _RULES_WITH_OWN_FAULTS)
def test_the_same_faults_do_no_harm_while_the_rule_holds(name: str) -> None:
    for seed in range(20):
        rule = PROTOCOL_RULES[name]
        assert simulate(seed, faults=rule.faults, policies=rule.policies).violations == []
