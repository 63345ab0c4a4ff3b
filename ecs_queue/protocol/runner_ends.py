"""What a record's retry rules say of the end that a runner of a warm pool has reported."""

from __future__ import annotations

import msgspec

from ecs_queue.protocol import reasons
from ecs_queue.protocol.assignments import needs_ruling
from ecs_queue.protocol.operations import EndRuling
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RandomSource
from ecs_queue.protocol.retry_rules import FailedAttempt, rule_on
from ecs_queue.protocol.runs import RunEnd


class EndDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What follows the end that a runner has reported of its command.

    Attributes:
        wait: Seconds until the next launch, should the request be launched again.
        retry_rule: The number of the retry rule that decided, from 1 on; 0: the relaunch policy, or none needed.
    """

    ruling: EndRuling
    wait: float
    retry_rule: int = 0


def decide_runner_end(record: Record, end: RunEnd, backoff: Backoff, rng: RandomSource) -> EndDecision:
    """Return what the record's retry rules say of a command's end; only an exit code is known of it."""
    wait = backoff.delay(record.attempt, rng)
    if not needs_ruling(record, end):
        return EndDecision(ruling=EndRuling.UNKNOWN, wait=wait)
    attempt = FailedAttempt(end="exited", exit_code=end.exit_code, reasons=(reasons.COMMAND_EXITED % end.exit_code,))
    ruling = rule_on(record.retry_rules, record.relaunch, attempt)
    if ruling.delay is not None:
        wait = max(ruling.delay, backoff.base)
    retry = EndRuling.RETRY if ruling.counts_attempt else EndRuling.RETRY_UNCOUNTED
    return EndDecision(ruling=retry if ruling.retries else EndRuling.FAIL, wait=wait, retry_rule=ruling.rule)
