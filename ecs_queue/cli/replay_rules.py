"""`replay FILE --offline --set-rules RULES.json`: what other retry rules would have done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.output import describe_number, print_fields, print_json, print_stderr, print_stdout
from ecs_queue.error_text import error_text
from ecs_queue.errors import UsageError
from ecs_queue.named_file import read_named_file

if TYPE_CHECKING:
    from ecs_queue.protocol.retry_rules import RetryRule
    from ecs_queue.replay.other_rules import AttemptComparison, Outcome

_MAX_RULES_BYTES = 1 << 20


def replay_with_rules(file: str, rules_file: str, as_json: bool) -> int:
    """Print each recorded end of an attempt that these rules would have treated in another way; 1 if there are any.

    Raises:
        UsageError: A file cannot be read, holds no rules, or has no end of an attempt.
    """
    from ecs_queue.journal.jsonl import InvalidJournalFile, read_events
    from ecs_queue.replay.other_rules import compare_rules

    compared = compare_rules(read_events(file, print_stderr), _read_rules(rules_file))
    if not compared:
        raise InvalidJournalFile(f"{file} has no end of an attempt: export the whole journal")
    differing = [each for each in compared if each.differs]
    if as_json:
        import msgspec

        for each in differing:
            print_json(msgspec.to_builtins(each))
    else:
        for each in differing:
            _print_difference(each)
        number = describe_number(len(compared), "ended attempt")
        print_stdout(f"{len(differing)} of {number} would have been treated in another way")
    return EXIT_FAILURE if differing else 0


def _read_rules(file: str) -> tuple[RetryRule, ...]:
    from ecs_queue.messages.retry_rules import parse_retry_rules

    try:
        return parse_retry_rules(json.loads(read_named_file(file, _MAX_RULES_BYTES)))
    except OSError as error:
        raise UsageError(f"--set-rules {file}: {error.strerror}; expected a JSON list of retry rules") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--set-rules {file}: {error_text(error)}") from None


def _print_difference(compared: AttemptComparison) -> None:
    code = "" if compared.exit_code is None else str(compared.exit_code)
    print_fields(
        [
            ("request", f"{compared.id}, attempt {compared.attempt}"),
            ("exit code", code),
            ("stop code", compared.stop_code),
            ("reason", compared.reason),
            ("then", _describe(compared.recorded)),
            ("with these rules", _describe(compared.now)),
        ]
    )
    print_stdout("")


def _describe(outcome: Outcome) -> str:
    by = f" (rule {outcome.retry_rule})" if outcome.retry_rule else ""
    if not outcome.retries:
        return f"ended{by}"
    uncounted = "" if outcome.counts_attempt else ", without using an attempt"
    return f"launched again after {format_duration(outcome.wait)}{uncounted}{by}"
