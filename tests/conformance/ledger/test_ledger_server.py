"""Role `LedgerServer`: the clock. Also checks that every role has tests here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import pytest

from ecs_queue.ledger.base import Ledger
from tests.conformance.ledger.harness import LedgerHarness
from tests.fake_clock import START


def test_now_is_the_ledgers_clock(harness: LedgerHarness) -> None:
    harness.advance(1.125)
    assert harness.ledger.now() == START + 1.125


@pytest.mark.parametrize("role", [role for role in Ledger.__bases__ if role is not Protocol])
def test_every_role_has_a_test_file(role: type) -> None:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", role.__name__).lower()
    assert list(Path(__file__).parent.glob(f"test_{name}*.py"))
