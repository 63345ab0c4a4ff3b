"""`replay --explain`: what would be sent to ECS now beside what was sent then."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.output import clean, is_watched, say, show_json

if TYPE_CHECKING:
    from ecs_queue.cli.past import Past
    from ecs_queue.config import Config, Profile
    from ecs_queue.core.again import Changes

DIFFERENT = 1
_COLOURS = {"-": "red", "+": "green", "@": "cyan"}


@dataclass(frozen=True)
class Comparison:
    """`then` and `now` without secrets; `then` None: nothing was ever sent. `sent_at`: seconds since the epoch."""

    id: str
    queue: str
    now: Mapping[str, Any] = field(repr=False)
    then: Mapping[str, Any] | None = field(default=None, repr=False)
    launch: int = 0
    sent_at: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether the very same would be sent."""
        return self.then == self.now


def compare(config: Config, past: Past, changes: Changes) -> Comparison:
    """Render the request with today's configuration and the changes; clientToken and startedBy are left out."""
    import msgspec

    from ecs_queue.core.again import line_of
    from ecs_queue.core.plan import queued_task
    from ecs_queue.core.run_task_kwargs import render_run_task_kwargs
    from ecs_queue.journal.redact import redact

    past, changes = _filled(past, changes)
    profile = config.profile(changes.queue or past.request.queue)
    line = line_of(past.request, past.id, changes, profile.container_name)
    request = msgspec.convert({**msgspec.to_builtins(past.request), **line}, type(past.request))
    now = {"run_task": _plain(render_run_task_kwargs(profile, queued_task(request, 1, 0.0)))}
    target = _target(profile)
    if past.sent is None:
        return Comparison(past.id, request.queue, redact({**now, "target": target} if target else now))
    then = {"run_task": _plain(past.sent.plan.run_task)}
    if target and past.sent.target:  # a Region, an endpoint and a role decide as much as the arguments
        now["target"], then["target"] = target, dict(past.sent.target)
    return Comparison(
        past.id, request.queue, _mark(redact(now), then, now), redact(then), past.sent.launch, past.sent.at
    )


def _target(profile: Profile) -> dict[str, Any]:
    """Where it would go; empty when that cannot be known here."""
    from ecs_queue.ecs.clients import ClientOptions, EcsClients
    from ecs_queue.errors import ConfigError

    try:
        return dict(json.loads(EcsClients(ClientOptions()).target_for(profile).encode()))
    except ConfigError:  # no Region: a worker has its own
        return {}


def show_comparison(found: Comparison, as_json: bool) -> int:
    """Print it; 1 when there are differences, as of diff(1)."""
    if as_json:
        show_json(_facts(found))
    elif found.then is None:
        say(
            f"ecs-queue: {found.id} was never launched, or what was sent for it is not known (any more); "
            f"this would be sent now, from queue {found.queue}"
        )
        show_lines(_text(found.now))
    elif found.is_identical:
        say(f"ecs-queue: the very same would be sent now as in launch {found.launch} of {found.id}")
    else:
        show_lines(list(_diff(found)))
    return 0 if found.then is None or found.is_identical else DIFFERENT


def show_lines(lines: list[str]) -> None:
    """On stdout, the lines of a diff in colours when a person looks."""
    watched = is_watched()
    for line in lines:
        colour = _COLOURS.get(line[:1]) if watched else None
        if colour:
            click.secho(_kept(line), fg=colour)
        else:
            show_indented(line)


def show_indented(line: str) -> None:
    """`show` keeps no indentation."""
    click.echo(_kept(line).encode("utf-8", "backslashreplace"))


def _kept(line: str) -> str:
    return line[: len(line) - len(line.lstrip())] + clean(line)


def _filled(past: Past, changes: Changes) -> tuple[Past, Changes]:
    """With what --env says; what is still hidden stays so, on both sides."""
    import msgspec

    if not past.hidden:
        return past, changes
    past, left = past.with_some_secrets(changes.environment)
    return past, msgspec.structs.replace(changes, environment=left)


def _mark(shown: Any, then: Any, now: Any) -> Any:
    """`shown`, what would be sent, where a hidden value is another one than was sent (as far as that is known)."""
    from ecs_queue.journal.redact import REDACTED, is_redacted

    if isinstance(shown, dict):
        return {
            key: _mark(item, then.get(key) if isinstance(then, dict) else None, now[key]) for key, item in shown.items()
        }
    if isinstance(shown, list):
        return [_mark(item, _beside(then, now, place), now[place]) for place, item in enumerate(shown)]
    is_known = then is not None and not is_redacted(then) and not is_redacted(now)
    if is_redacted(shown) and is_known and then != now:
        return f"{shown.replace(REDACTED, REDACTED + ' (another value)')}"
    return shown


def _beside(then: Any, now: list[Any], place: int) -> Any:
    """The element of the other list: that of the same name, else at the same place."""
    if not isinstance(then, list):
        return None
    item = now[place]
    if isinstance(item, dict) and "name" in item:
        return next((one for one in then if isinstance(one, dict) and one.get("name") == item["name"]), None)
    return then[place] if place < len(then) else None


def _diff(found: Comparison) -> Iterator[str]:
    from ecs_queue.cli.facts import moment_text

    then = f"sent then: launch {found.launch} at {moment_text(found.sent_at)}"
    now = f"sent now: from queue {found.queue}"
    before, after = _text(found.then or {}), _text(found.now)
    return difflib.unified_diff(before, after, then, now, n=3, lineterm="")


def _facts(found: Comparison) -> dict[str, Any]:
    from ecs_queue.cli.facts import moment_text

    return {
        "id": found.id,
        "queue": found.queue,
        "launch": found.launch or None,
        "sent_at": moment_text(found.sent_at),
        "identical": found.is_identical if found.then is not None else None,
        "then": found.then,
        "now": found.now,
    }


def _text(value: Mapping[str, Any]) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _plain(value: Any) -> Any:
    """As JSON has it: a tuple is a list."""
    return json.loads(json.dumps(value))
