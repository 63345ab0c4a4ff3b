"""`replay --explain`: compares what would be sent to ECS now with what was sent."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.durations import format_timestamp
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.output import print_json, print_stderr, sanitize, style, write_stdout
from ecs_queue.payload_repr import PayloadRepr

if TYPE_CHECKING:
    from ecs_queue.config import Config, Profile
    from ecs_queue.replay.past_request import PastRequest
    from ecs_queue.runtask.resubmit import ResubmitChanges

_DIFF_COLOURS = {"-": "red", "+": "green", "@": "cyan"}


@dataclass(frozen=True, repr=False)
class Comparison(PayloadRepr):
    """What was sent and what would be sent, without secrets.

    Attributes:
        previous: What was sent; None when there was no launch, or it is unknown.
        sent_at: When it was sent, seconds since the epoch.
    """

    id: str
    queue: str
    current: Mapping[str, Any] = field(repr=False)
    previous: Mapping[str, Any] | None = field(default=None, repr=False)
    launch: int = 0
    sent_at: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether the same would be sent."""
        return self.previous == self.current


def compare_launch(config: Config, past: PastRequest, changes: ResubmitChanges, *, reveal: bool) -> Comparison:
    """Render the request with today's configuration and the changes. clientToken and startedBy are left out.

    Args:
        config: Says what is hidden: what the journal hides of a request that is not encrypted; with encryption keys
            environment and command.
        past: The request.
        changes: What is to change.
        reveal: Hide nothing.
    """
    import msgspec

    from ecs_queue.journal.redact import redact
    from ecs_queue.runtask.arguments import render_run_task_kwargs
    from ecs_queue.runtask.launch_spec import build_queued_task
    from ecs_queue.runtask.resubmit import build_resubmit_line

    if past.redacted:  # what --env does not give stays redacted on both sides
        past, environment = past.with_available_secrets(changes.environment)
        changes = msgspec.structs.replace(changes, environment=environment)

    def hide(arguments: dict[str, Any]) -> dict[str, Any]:
        redaction = "arguments" if config.encryption_keys else config.journal_redaction
        return arguments if reveal else redact(arguments, redaction)

    profile = config.profile(changes.queue or past.request.queue)
    line = build_resubmit_line(past.request, past.id, changes, profile.container_name)
    request = msgspec.convert({**msgspec.to_builtins(past.request), **line}, type(past.request))
    current = {
        "run_task": _to_plain_json(render_run_task_kwargs(profile, build_queued_task(request, 1, 0.0), request.labels))
    }
    target = _target(profile)
    call = past.last_call
    if call is None:
        return Comparison(past.id, request.queue, hide({**current, "target": target} if target else current))
    previous = {"run_task": _to_plain_json(call.launch_spec.run_task)}
    if target and call.target:  # Region, endpoint and role matter as much as the arguments
        current["target"], previous["target"] = target, dict(call.target)
    shown = _mark_changed_secrets(hide(current), previous, current)
    return Comparison(past.id, request.queue, shown, hide(previous), call.launch, call.at)


def _target(profile: Profile) -> dict[str, Any]:
    """Return where the call would go; empty when this machine has no Region set, as a worker may have its own."""
    from ecs_queue.ecs.clients import ClientOptions, EcsClients
    from ecs_queue.errors import ConfigError

    try:
        return dict(json.loads(EcsClients(ClientOptions()).target_for(profile).encode()))
    except ConfigError:
        return {}


def diff_lines(comparison: Comparison, context: int = 3) -> Iterator[str]:
    """Yield the lines of a unified diff, with `context` lines around each difference; without a launch, of all."""
    previous = _json_lines(comparison.previous) if comparison.previous is not None else []
    then = f"sent then: launch {comparison.launch} at {format_timestamp(comparison.sent_at)}"
    now = f"sent now: from queue {comparison.queue}"
    return difflib.unified_diff(previous, _json_lines(comparison.current), then, now, n=context, lineterm="")


def print_comparison(comparison: Comparison, as_json: bool) -> int:
    """Print the comparison, and return 1 when there are differences, as diff(1) does."""
    previous, current = comparison.previous, comparison.current
    if as_json:
        facts = {"id": comparison.id, "queue": comparison.queue, "launch": comparison.launch or None}
        facts |= {"sent_at": format_timestamp(comparison.sent_at)}
        identical = None if previous is None else comparison.is_identical
        print_json({**facts, "identical": identical, "previous": previous, "current": current})
    elif previous is None:
        print_stderr(
            f"ecs-queue: {comparison.id} was never launched, or the journal does not know (any more) what was sent; "
            f"this would be sent now, from queue {comparison.queue}"
        )
        print_diff(_json_lines(current))
    elif comparison.is_identical:
        print_stderr(f"ecs-queue: the same would be sent now as in launch {comparison.launch} of {comparison.id}")
    else:
        print_diff(list(diff_lines(comparison)))
    return 0 if previous is None or comparison.is_identical else EXIT_FAILURE


def print_diff(lines: Sequence[str]) -> None:
    """Print the lines of a diff to stdout, in colours on a terminal."""
    for line in lines:
        shown = line[: len(line) - len(line.lstrip())] + sanitize(line)  # `sanitize` alone drops the indentation
        colour = _DIFF_COLOURS.get(line[:1])
        write_stdout(style(shown, fg=colour) if colour else shown)


def _mark_changed_secrets(shown: Any, previous: Any, current: Any) -> Any:
    """Mark the redacted values of `shown` that differ from what was sent, where that is known."""
    from ecs_queue.journal.redact import REDACTED, is_redacted

    if isinstance(shown, dict):
        return {
            key: _mark_changed_secrets(item, previous.get(key) if isinstance(previous, dict) else None, current[key])
            for key, item in shown.items()
        }
    if isinstance(shown, list):
        return [
            _mark_changed_secrets(item, _matching_element(previous, current, place), current[place])
            for place, item in enumerate(shown)
        ]
    is_known = previous is not None and not is_redacted(previous) and not is_redacted(current)
    if is_redacted(shown) and is_known and previous != current:
        return f"{shown.replace(REDACTED, REDACTED + ' (another value)')}"
    return shown


def _matching_element(previous: Any, current: list[Any], place: int) -> Any:
    """Return the element of `previous` with the same name, or else at the same place."""
    if not isinstance(previous, list):
        return None
    item = current[place]
    if isinstance(item, dict) and "name" in item:
        return next((old for old in previous if isinstance(old, dict) and old.get("name") == item["name"]), None)
    return previous[place] if place < len(previous) else None


def _json_lines(value: Mapping[str, Any]) -> list[str]:
    # Not splitlines(): a value may have a line separator (U+2028).
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).split("\n")


def _to_plain_json(value: Any) -> Any:
    """JSON makes a list of a tuple."""
    return json.loads(json.dumps(value))
