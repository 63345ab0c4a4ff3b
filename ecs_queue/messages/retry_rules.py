"""Reads retry rules as people write them: in a configuration, a task line or a request (docs/policies.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from ecs_queue.durations import EXAMPLES, MAX_SECONDS, parse_duration
from ecs_queue.error_text import error_text
from ecs_queue.protocol.retry_rules import RetryRule

#: As many, and as long patterns in characters, as in AWS Batch.
MAX_RULES, MAX_PATTERN = 10, 512
_WORDS = {"action": ("retry", "fail"), "on_end": ("never_started", "interrupted", "exited")}
_PATTERNS = ("on_exit_code", "on_reason", "on_stop_code")


def parse_retry_rules(value: object) -> tuple[RetryRule, ...]:
    """Return the rules of a decoded JSON list; their delays are in seconds.

    Raises:
        ValueError: They are no rules; one sentence says which, and what was expected.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(f"expected a list of retry rules, found {type(value).__name__}")
    if len(value) > MAX_RULES:
        raise ValueError(f"expected at most {MAX_RULES} retry rules, found {len(value)}")
    return tuple(_parse_rule(f"retry rule {number}", each) for number, each in enumerate(value, 1))


def _parse_rule(which: str, value: object) -> RetryRule:
    if isinstance(value, Mapping) and value.get("delay") is not None:
        value = {**value, "delay": _parse_delay(which, value["delay"])}
    for name, words in _WORDS.items():
        if isinstance(value, Mapping) and value.get(name, words[0]) not in words:
            raise ValueError(f"{which}: {name}: expected {' or '.join(words)}, found {value[name]!r:.80}")
    try:
        rule = msgspec.convert(value, RetryRule)
    except msgspec.ValidationError as error:
        text, _, path = error_text(error).partition(" - at `$.")
        members = ", ".join(RetryRule.__struct_fields__)
        raise ValueError(f"{which}: {path.rstrip('`') + ': ' if path else ''}{text}; members are {members}") from None
    for name in _PATTERNS:
        pattern = getattr(rule, name)
        if len(pattern) > MAX_PATTERN or "*" in pattern[:-1]:
            expected = f"at most {MAX_PATTERN} characters, with * only at the end"
            raise ValueError(f"{which}: {name}: expected {expected}, found {pattern!r:.80}")
    if not re.fullmatch(r"[0-9]*[*]?", rule.on_exit_code):
        raise ValueError(f"{which}: on_exit_code: expected digits, with * only at the end, found {rule.on_exit_code!r}")
    if rule.action == "fail" and (rule.delay is not None or not rule.counts_attempt):
        raise ValueError(f"{which}: expected delay and counts_attempt only with the action retry, found fail")
    return rule


def _parse_delay(which: str, value: object) -> float:
    seconds = parse_duration(value)
    if seconds is None or seconds > MAX_SECONDS:
        raise ValueError(f"{which}: delay: expected a duration such as {EXAMPLES}, found {value!r:.80}")
    return seconds
