"""The targets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from tests.fuzz.events import open_event_target, open_journal_target
from tests.fuzz.lua import open_lua_target
from tests.fuzz.messages import open_envelope_target, open_result_target, open_task_file_target
from tests.fuzz.runner import Target

TARGETS: Mapping[str, Callable[[], AbstractContextManager[Target]]] = {
    "envelope": open_envelope_target,
    "result": open_result_target,
    "journal": open_journal_target,
    "lua": open_lua_target,
    "event": open_event_target,
    "taskfile": open_task_file_target,
}
