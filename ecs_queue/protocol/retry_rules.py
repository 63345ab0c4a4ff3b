"""Retry rules: what follows an attempt that failed, by its exit code, reason, stop code and end (docs/policies.md).

Rules are as AWS Batch's evaluateOnExit: an ordered list, the first rule whose patterns all match decides. Where none
matches, the request's relaunch policy does, which is a named list of rules itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from ecs_queue.protocol.observation import Observation

End = Literal["", "never_started", "interrupted", "exited"]


class RetryRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule; a pattern that is empty matches everything. A `*` at the end of a pattern matches any rest.

    Attributes:
        action: "retry" launches the request again, "fail" ends it.
        on_exit_code: For the exit code of the deciding container; a pattern never matches a task without an exit code.
        on_reason: For the task's stoppedReason, or a container's reason.
        on_stop_code: For ECS's stopCode.
        on_end: Whether the program never started, its host was lost, or it ran to its own end.
        counts_attempt: Whether a retry uses an attempt.
        delay: Seconds until the retry; None: the usual backoff.
    """

    action: Literal["retry", "fail"]
    on_exit_code: str = ""
    on_reason: str = ""
    on_stop_code: str = ""
    on_end: End = ""
    counts_attempt: bool = True
    delay: float | None = None


class FailedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """What rules decide about: the end of an attempt that failed and that no user stopped."""

    end: End
    exit_code: int | None = None
    stop_code: str = ""
    reasons: Sequence[str] = ()


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule decided. `rule` is its number from 1 on; 0: the relaunch policy decided."""

    retries: bool
    counts_attempt: bool = True
    delay: float | None = None
    rule: int = 0


#: Relaunch policy -> the rules that it is short for. What no rule matches, fails.
RELAUNCH_POLICIES: Mapping[str, tuple[RetryRule, ...]] = {
    "never_started": (RetryRule(action="retry", on_end="never_started"),),
    "interrupted": (
        RetryRule(action="retry", on_end="never_started"),
        RetryRule(action="retry", on_end="interrupted"),
    ),
    "any_failure": (RetryRule(action="retry"),),
}

_ENDS: Mapping[str | None, End] = {
    "start_failure": "never_started",
    "interrupted": "interrupted",
    "ran": "exited",
}
_rules_decoder = msgspec.json.Decoder(tuple[RetryRule, ...])


def encode_retry_rules(rules: Sequence[RetryRule]) -> str:
    """Return the text of rules, as a record keeps it; "" for none."""
    return msgspec.json.encode(list(rules)).decode() if rules else ""


def decode_retry_rules(text: str) -> tuple[RetryRule, ...]:
    """Return the rules that `encode_retry_rules` wrote; none for what cannot be read: the relaunch policy decides."""
    try:
        return _rules_decoder.decode(text) if text else ()
    except (msgspec.DecodeError, RecursionError):
        return ()


def failed_attempt(observation: Observation) -> FailedAttempt | None:
    """Return what rules look at of a task that has ended; None if no rule decides: it succeeded, or was stopped."""
    end = _ENDS.get(observation.end_kind)
    if end is None or (end == "exited" and observation.state.value == "success"):
        return None
    return FailedAttempt(
        end=end,
        exit_code=observation.exit_code,
        stop_code=observation.stop_code or "",
        reasons=observation.reasons,
    )


def rule_on(rules: str, relaunch: str, attempt: FailedAttempt) -> Ruling:
    """Return what follows a failed attempt by a record's `retry_rules` and its relaunch policy.

    It does not check whether attempts are left.
    """
    for number, rule in enumerate(decode_retry_rules(rules), 1):
        if _matches(rule, attempt):
            retries = rule.action == "retry"
            return Ruling(retries=retries, counts_attempt=rule.counts_attempt, delay=rule.delay, rule=number)
    policy = RELAUNCH_POLICIES.get(relaunch, RELAUNCH_POLICIES["never_started"])
    return Ruling(retries=any(_matches(rule, attempt) for rule in policy))


def _matches(rule: RetryRule, attempt: FailedAttempt) -> bool:
    if rule.on_end and rule.on_end != attempt.end:
        return False
    code = "" if attempt.exit_code is None else str(attempt.exit_code)
    if rule.on_exit_code and not (code and _matches_pattern(rule.on_exit_code, code)):
        return False
    if rule.on_stop_code and not _matches_pattern(rule.on_stop_code, attempt.stop_code):
        return False
    return not rule.on_reason or any(_matches_pattern(rule.on_reason, reason) for reason in attempt.reasons or ("",))


def _matches_pattern(pattern: str, text: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
