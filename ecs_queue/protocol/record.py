"""The record of one request in the ledger: every fact that the system knows about it (docs/protocol.md)."""

from __future__ import annotations

import msgspec

from ecs_queue.protocol.states import TERMINAL_STATES, State

#: Reserved values of `Record.stop_requested_by`; any other value names the person or program that requested the stop.
STOPPED_BY_EXPIRY = "expiry"
STOPPED_BY_TIME_LIMIT = "time_limit"
#: Of a launch, not of its request: `Record.stop_requested_by` never has it. It stands in the reason of StopTask.
STOPPED_BY_START_TIMEOUT = "start_timeout"
#: No person or program may be named so.
RESERVED_NAMES = frozenset({STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, STOPPED_BY_START_TIMEOUT})


class Record(msgspec.Struct, kw_only=True):
    """One request. Times are seconds since the epoch by the ledger's clock; 0 means never.

    `request` is the envelope as published, `args` are the frozen RunTask arguments as JSON. Both are erased when the
    request reaches its terminal state.
    """

    id: str
    nonce: str = ""
    digest: str = ""
    queue: str = ""
    owner: str = ""
    relaunch: str = "never_started"
    request: bytes = b""
    accept_until: float = 0.0
    expires_at: float = 0.0
    time_limit: float = 0.0
    traceparent: str = ""  # the caller's trace (W3C)
    delayed_until: float = 0.0  # it is not launched before; 0: as soon as it can be
    labels: str = ""  # what the request is for, as a JSON object of texts; "": none
    submitted_by: str = ""
    concurrency_key: str = ""  # at most `max_per_key` requests of its queue with this key are in flight; "": none
    priority: int = 0  # of a request with a key: orders those of the key
    created_at: float = 0.0

    state: State = State.QUEUED
    launch: int = 1
    attempt: int = 1
    calls: int = 0  # claims of the current launch number; the backoff grows with them
    not_before: float = 0.0
    waits_for_key: bool = False  # a claim found its key full; until the next claim, or the end
    requeued_at: float = 0.0  # when its last attempt, or a task of it, was over and it was queued again

    claim: str = ""
    worker: str = ""
    lease_until: float = 0.0
    first_called_at: float = 0.0
    last_claim_at: float = 0.0
    ambiguous: bool = False
    retired: bool = False
    abandoned_claims: int = 0  # consecutive claims whose holder never reported back
    last_answer: str = ""  # "operation token result" of the last call under a claim token (repeated_calls.py)
    target: str = ""
    args: str = ""
    container_name: str = ""  # of `args`: the container that decides how the task ended
    max_attempts: int = 0  # of `args`
    spec_version: int = 0  # the version of `args`; 0: the worker that froze them stored none of these three
    start_timeout: float = 0.0  # of this launch; 0: none
    retry_rules: str = ""  # of this launch, as JSON (retry_rules.py); "": the relaunch policy alone
    max_starting: int = 0  # its queue's limit when it was launched: until RUNNING it counts; 0: it does not
    variant: int = 0  # of this launch (capacity_fallback.py), from 1 on; 0: its queue has no other capacity
    variant_reason: str = ""  # why it is not the first one

    run: str = ""  # the runner that has this launch, or had it at the end; "": a task of its own
    arn: str = ""
    version: int = 0
    last_status: str = ""
    launched_at: float = 0.0
    started_at: float = 0.0

    stop_requested_by: str = ""
    stop_requested_at: float = 0.0

    finished_at: float = 0.0
    exit_code: int | None = None
    stop_code: str = ""
    reason: str = ""  # why it ended; before the end, why it waits
    attempts: int = 0  # attempts made in total, set at the end
    undelivered: bool = False
    confirmed_at: float = 0.0

    @property
    def attempts_made(self) -> int:
        """How many attempts were made so far, with the present one from its first launch on."""
        if self.is_terminal:
            return self.attempts
        return self.attempt - 1 if self.state is State.QUEUED else self.attempt

    @property
    def is_terminal(self) -> bool:
        """Whether it has reached a terminal state."""
        return self.state in TERMINAL_STATES

    def __repr__(self) -> str:
        """Return a text without the payload: commands and environments hold secrets."""
        return f"Record(id={self.id!r}, state={self.state}, launch={self.launch}, attempt={self.attempt})"


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What `put` stores of a request; `request` is the envelope exactly as published."""

    id: str
    nonce: str
    digest: str
    queue: str
    owner: str
    relaunch: str
    request: bytes
    accept_until: float
    expires_at: float = 0.0
    time_limit: float = 0.0
    traceparent: str = ""
    delayed_until: float = 0.0
    labels: str = ""
    submitted_by: str = ""
    concurrency_key: str = ""
    priority: int = 0

    def __repr__(self) -> str:
        """Return a text without the payload."""
        return f"Submission(id={self.id!r}, nonce={self.nonce!r}, queue={self.queue!r})"


def build_started_by(namespace: str, record_id: str, nonce: str, launch: int) -> str:
    """Return RunTask's startedBy, the only durable link from an ECS task to its request: at most 128 characters."""
    return f"{namespace}/{record_id}/{nonce}/{launch}"


def build_client_token(record_id: str, nonce: str, launch: int) -> str:
    """Return RunTask's clientToken: at most 48 + 1 + 8 + 1 + 6 = 64 characters."""
    return f"{record_id}.{nonce}.{launch}"
