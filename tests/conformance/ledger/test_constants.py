"""The Lua script has the protocol's numbers, reasons and states from Python, and none of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import fakeredis
import pytest

from ecs_queue.ledger.script_text import fill_in_constants, render_table
from ecs_queue.protocol.reasons import REASON_TEMPLATES
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import protocol_numbers
from ecs_queue.protocol.states import LIVE_STATES, TERMINAL_STATES
from ecs_queue.protocol.task_order import STATUS_RANKS
from tests.protocol.settings import DEFAULT_SETTINGS, make_settings

_LUA_FILES = sorted((path for path in (files("ecs_queue.ledger") / "lua").iterdir()), key=lambda path: path.name)
#: Indexes and steps, parts of units (1e6, 1000), the half that rounds, the spacing of dead letters' times (1e-6), and
#: what bounds one run of the script or the life of a key: 500 dead letters, 60 s.
_LUA_NUMBERS = {"0", "1", "2", "3", "4", "5", "6", "1000", "1e6", "0.5", "1e-6", "500", "60"}


def _evaluate(declarations: str, table: str) -> dict[str, str]:
    """The table that the declarations or the expression give, as Lua has it."""
    script = f"""{declarations}
        local reply = {{}}
        for key, value in pairs({table}) do
          reply[#reply + 1] = key
          reply[#reply + 1] = type(value) == 'number' and string.format('%.17g', value) or value
        end
        return reply"""
    with fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True) as client:
        flat: Any = client.eval(script, 0)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _evaluate_table(name: str) -> dict[str, str]:
    return _evaluate(render_table(name), name)


def _evaluate_constants(kind: str, names: Iterable[str], settings: Any = DEFAULT_SETTINGS) -> dict[str, str]:
    entries = ", ".join(f"{name} = {kind}.{name}" for name in names)
    return _evaluate("", fill_in_constants(f"{{ {entries} }}", settings))


@pytest.mark.parametrize("settings", [DEFAULT_SETTINGS, make_settings(lease_seconds=0.1, max_in_flight=7)])
def test_both_implementations_have_the_same_numbers(settings: Any) -> None:
    expected = protocol_numbers(settings)
    numbers = {name: float(value) for name, value in _evaluate_constants("SETTINGS", expected, settings).items()}
    assert numbers == expected


def test_both_implementations_have_the_same_reasons() -> None:
    assert _evaluate_constants("REASONS", REASON_TEMPLATES) == REASON_TEMPLATES


def test_both_implementations_have_the_same_states_and_defaults() -> None:
    assert _evaluate_table("LIVE_STATES").keys() == LIVE_STATES
    assert _evaluate_table("TERMINAL_STATES").keys() == TERMINAL_STATES
    record = Record(id="job")
    for name, default in _evaluate_table("RECORD_NUMBERS").items():
        assert getattr(record, name) == float(default)


def test_both_implementations_have_the_same_order_of_statuses() -> None:
    assert {status: int(rank) for status, rank in _evaluate_table("STATUS_RANKS").items()} == STATUS_RANKS


@pytest.mark.parametrize("path", _LUA_FILES, ids=lambda path: path.name)
def test_no_lua_file_declares_a_number_of_the_protocol(path: Any) -> None:
    code = re.sub(r"--.*|'[^']*'", "", path.read_text())
    assert set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", code)) <= _LUA_NUMBERS


@pytest.mark.parametrize("path", _LUA_FILES, ids=lambda path: path.name)
def test_every_number_and_reason_that_a_lua_file_uses_exists(path: Any) -> None:
    used = re.findall(r"\b(SETTINGS|REASONS)\.(\w+)", path.read_text())
    known = {"SETTINGS": set(protocol_numbers(DEFAULT_SETTINGS)), "REASONS": set(REASON_TEMPLATES)}
    assert [name for table, name in used if name not in known[table]] == []
