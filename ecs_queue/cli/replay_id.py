"""`replay ID`: one request again, as a new one, on this machine, or only compared with what was sent."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.options import Options, opened_queue
from ecs_queue.cli.output import show, show_json
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.cli.past import Past
    from ecs_queue.client import EcsQueue
    from ecs_queue.core.again import Changes


def replay_request(
    options: Options, record_id: str, mode: str, changes: Changes, new_id: str | None, as_json: bool
) -> int:
    """`mode`: submit, local or explain; the exit status. `new_id`: of the new request, with submit."""
    with opened_queue(options) as queue:
        past = _find(queue, record_id)
        if mode == "submit":
            return _submit(queue, past, changes, as_json, new_id)
        act: Callable[..., int] = _local if mode == "local" else _explain
        return act(queue, past, changes, as_json)


def changes_of(queue: str | None, settings: Sequence[str], variables: Sequence[str]) -> Changes:
    """What the options say. UsageError: one of them cannot be read."""
    from ecs_queue.core.again import MEMBERS, Changes

    values = dict(_pair("--set", text) for text in settings)
    return Changes(
        queue=queue or "",
        members={name: value for name, value in values.items() if name in MEMBERS},
        overrides={name: value for name, value in values.items() if name not in MEMBERS},
        environment=dict(_variable(text) for text in variables),
    )


def _find(queue: EcsQueue, record_id: str) -> Past:
    from ecs_queue.cli.history import opened_journal
    from ecs_queue.cli.past import find_past

    with opened_journal(queue.config) as journal:
        return find_past(queue, journal, record_id)


def _submit(queue: EcsQueue, past: Past, changes: Changes, as_json: bool, new_id: str | None) -> int:
    import msgspec

    from ecs_queue.cli.sending import Sending
    from ecs_queue.core.again import again_id, line_of

    past, left = past.with_secrets(changes.environment)
    changes = msgspec.structs.replace(changes, environment=left)
    main = queue.config.profile(changes.queue or past.request.queue).container_name
    line = line_of(past.request, new_id or again_id(past.id, secrets.token_hex(4)), changes, main)
    draft = queue.prepare(line, origin=past.id)
    queue.check()
    (handle,) = Sending(queue).send([draft], lambda _: None)
    if as_json:
        show_json({"id": handle.id, "origin": past.id, "queue": draft.request.queue})
    else:
        show(handle.id)
    return 0


def _local(queue: EcsQueue, past: Past, changes: Changes, as_json: bool) -> int:
    from ecs_queue.cli.replay_local import local_run, run_here

    return run_here(local_run(queue.config, past, changes), as_json)


def _explain(queue: EcsQueue, past: Past, changes: Changes, as_json: bool) -> int:
    from ecs_queue.cli.explain import compare, show_comparison

    return show_comparison(compare(queue.config, past, changes), as_json)


def _pair(option: str, text: str) -> tuple[str, Any]:
    """A value is JSON where it can be, else text: 512, null, spot."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{option}: expected KEY=VALUE, such as cpu=512, found {text!r}")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError("--env: expected NAME=VALUE or NAME, found no name")
    if equals:
        return name, value
    if name not in os.environ:
        raise UsageError(f"--env {name}: this shell's environment has no {name}; give --env {name}=VALUE")
    return name, os.environ[name]
