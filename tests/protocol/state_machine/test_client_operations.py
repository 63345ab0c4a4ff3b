"""A stop that arrives before its request."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol.state_machine import client_operations
from ecs_queue.protocol.states import State
from tests.protocol.state_machine.records import SETTINGS


@given(st.text(string.ascii_lowercase, min_size=1), st.floats(1e9, 2e9))
def test_a_tombstone_is_revoked_and_waits_for_its_request(by: str, now: float) -> None:
    record = client_operations.build_tombstone("job", by, now, SETTINGS)
    assert (record.state, record.stop_requested_by, record.attempts, record.digest) == (State.REVOKED, by, 0, "")
    assert record.accept_until == now + SETTINGS.accept_seconds
