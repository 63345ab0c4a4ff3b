"""`replay ID`: one request again, as a new one, on this machine, or only compared with what was sent."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.options import SharedOptions, open_client
from ecs_queue.cli.ui.output import print_json, print_stdout
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.replay.past_request import PastRequest
    from ecs_queue.runtask.resubmit import ResubmitChanges


def replay_request(
    options: SharedOptions, record_id: str, mode: str, changes: ResubmitChanges, new_id: str | None, as_json: bool
) -> int:
    """`mode`: submit, local or explain; the exit status. `new_id`: of the new request, with submit."""
    with open_client(options) as queue:
        past = _find_past_request(queue, record_id)
        if mode == "submit":
            return _submit(queue, past, changes, as_json, new_id)
        act: Callable[..., int] = _run_locally if mode == "local" else _explain
        return act(queue, past, changes, as_json)


def parse_changes(queue: str | None, settings: Sequence[str], variables: Sequence[str]) -> ResubmitChanges:
    """What the options say. UsageError: one of them cannot be read."""
    from ecs_queue.runtask.resubmit import CHANGEABLE_FIELDS, ResubmitChanges

    values = dict(_parse_setting("--set", text) for text in settings)
    return ResubmitChanges(
        queue=queue or "",
        fields={name: value for name, value in values.items() if name in CHANGEABLE_FIELDS},
        overrides={name: value for name, value in values.items() if name not in CHANGEABLE_FIELDS},
        environment=dict(_parse_variable(text) for text in variables),
    )


def _find_past_request(queue: EcsQueue, record_id: str) -> PastRequest:
    from ecs_queue.cli.ui.journal_access import open_journal_reader
    from ecs_queue.replay.past_request import find_past_request

    with open_journal_reader(queue.config) as journal:
        return find_past_request(queue, journal, record_id)


def _submit(queue: EcsQueue, past: PastRequest, changes: ResubmitChanges, as_json: bool, new_id: str | None) -> int:
    import msgspec

    from ecs_queue.cli.ui.submitter import Submitter
    from ecs_queue.runtask.resubmit import build_resubmit_id, build_resubmit_line

    past, left = past.with_secrets(changes.environment)
    changes = msgspec.structs.replace(changes, environment=left)
    main = queue.config.profile(changes.queue or past.request.queue).container_name
    line = build_resubmit_line(past.request, new_id or build_resubmit_id(past.id, secrets.token_hex(4)), changes, main)
    draft = queue.prepare(line, origin=past.id)
    queue.check()
    (handle,) = Submitter(queue).submit([draft], lambda _: None)
    if as_json:
        print_json({"id": handle.id, "origin": past.id, "queue": draft.request.queue})
    else:
        print_stdout(handle.id)
    return 0


def _run_locally(queue: EcsQueue, past: PastRequest, changes: ResubmitChanges, as_json: bool) -> int:
    from ecs_queue.cli.replay_local import make_local_run, run_locally

    return run_locally(make_local_run(queue.config, past, changes), as_json)


def _explain(queue: EcsQueue, past: PastRequest, changes: ResubmitChanges, as_json: bool) -> int:
    from ecs_queue.cli.replay_explain import compare_launch, print_comparison

    return print_comparison(compare_launch(queue.config, past, changes), as_json)


def _parse_setting(option: str, text: str) -> tuple[str, Any]:
    """A value is JSON where it can be, else text: 512, null, spot."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{option}: expected KEY=VALUE, such as cpu=512, found {text!r}")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _parse_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError("--env: expected NAME=VALUE or NAME, found no name")
    if equals:
        return name, value
    if name not in os.environ:
        raise UsageError(f"--env {name}: this shell's environment has no {name}; give --env {name}=VALUE")
    return name, os.environ[name]
