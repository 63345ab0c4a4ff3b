"""`replay --explain`: what would be sent to ECS now beside what was sent then."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.output import is_terminal, print_json, print_stderr, sanitize

if TYPE_CHECKING:
    from ecs_queue.config import Config, Profile
    from ecs_queue.replay.past_request import PastRequest
    from ecs_queue.runtask.resubmit import ResubmitChanges

EXIT_DIFFERENT = 1
_DIFF_COLOURS = {"-": "red", "+": "green", "@": "cyan"}


@dataclass(frozen=True)
class Comparison:
    """`previous` (None: nothing was ever sent) and `current` without secrets. `sent_at`: seconds since the epoch."""

    id: str
    queue: str
    current: Mapping[str, Any] = field(repr=False)
    previous: Mapping[str, Any] | None = field(default=None, repr=False)
    launch: int = 0
    sent_at: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether the very same would be sent."""
        return self.previous == self.current


def compare_launch(config: Config, past: PastRequest, changes: ResubmitChanges) -> Comparison:
    """Render the request with today's configuration and the changes; clientToken and startedBy are left out."""
    import msgspec

    from ecs_queue.journal.redact import redact
    from ecs_queue.runtask.arguments import render_run_task_kwargs
    from ecs_queue.runtask.launch_spec import build_queued_task
    from ecs_queue.runtask.resubmit import build_resubmit_line

    past, changes = _fill_secrets(past, changes)
    profile = config.profile(changes.queue or past.request.queue)
    line = build_resubmit_line(past.request, past.id, changes, profile.container_name)
    request = msgspec.convert({**msgspec.to_builtins(past.request), **line}, type(past.request))
    now = {"run_task": _to_plain_json(render_run_task_kwargs(profile, build_queued_task(request, 1, 0.0)))}
    target = _target(profile)
    if past.last_call is None:
        return Comparison(past.id, request.queue, redact({**now, "target": target} if target else now))
    then = {"run_task": _to_plain_json(past.last_call.launch_spec.run_task)}
    if target and past.last_call.target:  # a Region, an endpoint and a role decide as much as the arguments
        now["target"], then["target"] = target, dict(past.last_call.target)
    return Comparison(
        past.id,
        request.queue,
        _mark_changed_secrets(redact(now), then, now),
        redact(then),
        past.last_call.launch,
        past.last_call.at,
    )


def _target(profile: Profile) -> dict[str, Any]:
    """Where it would go; empty when that cannot be known here."""
    from ecs_queue.ecs.clients import ClientOptions, EcsClients
    from ecs_queue.errors import ConfigError

    try:
        return dict(json.loads(EcsClients(ClientOptions()).target_for(profile).encode()))
    except ConfigError:  # no Region: a worker has its own
        return {}


def print_comparison(comparison: Comparison, as_json: bool) -> int:
    """Print it; 1 when there are differences, as of diff(1)."""
    if as_json:
        print_json(_comparison_to_dict(comparison))
    elif comparison.previous is None:
        print_stderr(
            f"ecs-queue: {comparison.id} was never launched, or what was sent for it is not known (any more); "
            f"this would be sent now, from queue {comparison.queue}"
        )
        print_diff(_json_lines(comparison.current))
    elif comparison.is_identical:
        print_stderr(f"ecs-queue: the very same would be sent now as in launch {comparison.launch} of {comparison.id}")
    else:
        print_diff(list(_diff(comparison)))
    return 0 if comparison.previous is None or comparison.is_identical else EXIT_DIFFERENT


def print_diff(lines: list[str]) -> None:
    """On stdout, the lines of a diff in colours when a person looks."""
    watched = is_terminal()
    for line in lines:
        colour = _DIFF_COLOURS.get(line[:1]) if watched else None
        if colour:
            click.secho(_sanitize_indented(line), fg=colour)
        else:
            print_indented(line)


def print_indented(line: str) -> None:
    """`show` keeps no indentation."""
    click.echo(_sanitize_indented(line).encode("utf-8", "backslashreplace"))


def _sanitize_indented(line: str) -> str:
    return line[: len(line) - len(line.lstrip())] + sanitize(line)


def _fill_secrets(past: PastRequest, changes: ResubmitChanges) -> tuple[PastRequest, ResubmitChanges]:
    """With what --env says; what is still hidden stays so, on both sides."""
    import msgspec

    if not past.redacted:
        return past, changes
    past, left = past.with_available_secrets(changes.environment)
    return past, msgspec.structs.replace(changes, environment=left)


def _mark_changed_secrets(shown: Any, previous: Any, current: Any) -> Any:
    """`shown`, what would be sent, where a hidden value is another one than was sent (as far as that is known)."""
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
    """The element of the other list: that of the same name, else at the same place."""
    if not isinstance(previous, list):
        return None
    item = current[place]
    if isinstance(item, dict) and "name" in item:
        return next((one for one in previous if isinstance(one, dict) and one.get("name") == item["name"]), None)
    return previous[place] if place < len(previous) else None


def _diff(comparison: Comparison) -> Iterator[str]:
    from ecs_queue.cli.ui.record_view import format_timestamp

    then = f"sent then: launch {comparison.launch} at {format_timestamp(comparison.sent_at)}"
    now = f"sent now: from queue {comparison.queue}"
    before, after = _json_lines(comparison.previous or {}), _json_lines(comparison.current)
    return difflib.unified_diff(before, after, then, now, n=3, lineterm="")


def _comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    from ecs_queue.cli.ui.record_view import format_timestamp

    return {
        "id": comparison.id,
        "queue": comparison.queue,
        "launch": comparison.launch or None,
        "sent_at": format_timestamp(comparison.sent_at),
        "identical": comparison.is_identical if comparison.previous is not None else None,
        "previous": comparison.previous,
        "current": comparison.current,
    }


def _json_lines(value: Mapping[str, Any]) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _to_plain_json(value: Any) -> Any:
    """As JSON has it: a tuple is a list."""
    return json.loads(json.dumps(value))
