"""Records in any state, and what the operations on them are called with."""

from __future__ import annotations

from hypothesis import strategies as st

from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, Submission
from ecs_queue.protocol.states import State
from tests.protocol.settings import DEFAULT_SETTINGS

NOW = 1_700_000_000.0
SETTINGS = DEFAULT_SETTINGS
CLAIM_REQUEST = ClaimRequest(claim="new", worker="w", args="args", target="target")
SUBMISSION = Submission(
    id="job",
    nonce="n",
    digest="d",
    queue="q",
    owner="o",
    relaunch="never_started",
    request=b"{}",
    accept_until=NOW + 60,
)

_ages = st.sampled_from([0.0, 1.0, 29.0, 30.0, 31.0, 629.0, 630.0, 631.0, 2399.0, 2400.0, 3600.0, 3601.0, 90_000.0])
_times = st.one_of(st.just(0.0), _ages.map(lambda age: NOW - age))

#: Records as no life may ever leave them, too: no rule may depend on their being well-formed.
records = st.builds(
    Record,
    id=st.just("job"),
    nonce=st.just("n"),
    digest=st.sampled_from(["", "d", "e"]),
    owner=st.sampled_from(["", "o"]),
    expires_at=st.sampled_from([0.0, NOW - 1, NOW, NOW + 1]),
    state=st.sampled_from(State),
    launch=st.integers(1, 3),
    attempt=st.integers(1, 3),
    not_before=_times,
    claim=st.sampled_from(["", "held"]),
    lease_until=_times.map(lambda at: at and at + 30),
    first_called_at=_times,
    last_claim_at=_times,
    ambiguous=st.booleans(),
    retired=st.booleans(),
    args=st.sampled_from(["", "frozen"]),
    arn=st.sampled_from(["", "arn:1"]),
    version=st.integers(0, 3),
    stop_requested_by=st.sampled_from(["", "ann", STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT]),
    request=st.just(b"{}"),
)
