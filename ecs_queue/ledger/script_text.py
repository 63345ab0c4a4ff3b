"""Renders the script of each operation of the ledger from lua/*.lua.

Redis keeps nothing of a script between two runs: each run creates every function and table of it again. To create all
of the ledger's took three times as long as a claim. So a script has only those that its operation uses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import msgspec

from ecs_queue.protocol.reasons import REASON_TEMPLATES
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings, protocol_numbers
from ecs_queue.protocol.states import LIVE_STATES, TERMINAL_STATES
from ecs_queue.protocol.task_order import STATUS_RANKS

#: The file whose statements belong to every script.
_DISPATCH = "90_dispatch.lua"
#: A statement begins at the margin and goes on with lines that are indented or close it.
_STATEMENT = re.compile(r"^(?![ \n]|--|end|[})]|else).*\n(?:(?: .*|\n|--.*|end.*|[})].*|else.*)\n?)*", re.MULTILINE)
_NO_CODE = re.compile(r"--.*|'(?:\\.|[^'\\])*'")
#: The names that a statement declares, or to what it assigns.
_DECLARATION = re.compile(r"(?:local function |local |function operations\.)?(\w+)((?:, \w+)*)")
_OPERATION = re.compile(r"(?:function )?operations\.(\w+)")
_USED_NAME = re.compile(r"(?<![\w.:])[A-Za-z_]\w*")


class _Statement(NamedTuple):
    """A statement at the top level of a file, the names that it gives a meaning, and those that it uses."""

    text: str
    names: frozenset[str]
    used: frozenset[str]
    operation: str
    is_always_needed: bool


def operation_names() -> list[str]:
    """Return the names of all operations."""
    return sorted(statement.operation for statement in _statements() if statement.operation)


@lru_cache(maxsize=1024)
def render_script(settings: ProtocolSettings, operation: str) -> str:
    """Return the script of one operation: the protocol's tables, and the statements of lua/*.lua that it needs.

    Raises:
        ValueError: there is no such operation.
    """
    code = fill_in_constants("".join(statement.text for statement in _select(operation)), settings)
    names = [name for name in tables() if re.search(rf"\b{name}\b", code)]
    return "".join([*map(render_table, names), code])


def fill_in_constants(code: str, settings: ProtocolSettings) -> str:
    """Return the code with the protocol's numbers and reasons in place of SETTINGS.name and REASONS.name.

    A table of them would be built anew for each run.
    """
    values = {"SETTINGS": protocol_numbers(settings), "REASONS": REASON_TEMPLATES}
    return re.sub(r"\b(SETTINGS|REASONS)\.(\w+)", lambda name: json.dumps(values[name[1]][name[2]]), code)


def render_table(name: str) -> str:
    """Return the declaration of one of `tables`. What JSON writes for ASCII strings and numbers, Lua reads."""
    value = tables()[name]
    if isinstance(value, str):
        return f"local {name} = {json.dumps(value)}\n"
    return f"local {name} = {{ {', '.join(f'{key} = {json.dumps(entry)}' for key, entry in sorted(value.items()))} }}\n"


def read_script_parts() -> dict[str, str]:
    """Return the text of each lua/*.lua by file name, in the order in which they are joined."""
    paths = sorted((files("ecs_queue.ledger") / "lua").iterdir(), key=lambda path: path.name)
    return {path.name: path.read_text() for path in paths if path.name.endswith(".lua")}


def _select(operation: str) -> list[_Statement]:
    """Return what the operation needs, directly or through what it uses, in the order of the files."""
    statements = _statements()
    found = {place for place, each in enumerate(statements) if each.is_always_needed or each.operation == operation}
    if not any(statements[place].operation for place in found):
        raise ValueError(f"the ledger's script has no operation {operation}")
    new = set(found)
    while new:
        used = frozenset().union(*(statements[place].used for place in new))
        new = {
            place
            for place, each in enumerate(statements)
            if place not in found and not each.operation and not each.names.isdisjoint(used)
        }
        found |= new
    return [statements[place] for place in sorted(found)]


@cache
def _statements() -> tuple[_Statement, ...]:
    return tuple(
        _read_statement(match[0], is_always_needed=name == _DISPATCH)
        for name, text in read_script_parts().items()
        for match in _STATEMENT.finditer(text)
    )


def _read_statement(text: str, *, is_always_needed: bool) -> _Statement:
    code = _NO_CODE.sub("", text)
    code = "\n".join(line.rstrip() for line in code.splitlines() if line.strip()) + "\n"
    operation = _OPERATION.match(code)
    used = frozenset(_USED_NAME.findall(code))
    if operation:
        return _Statement(text, frozenset(), used, operation[1], is_always_needed=False)
    declared = _DECLARATION.match(code)
    assert declared is not None
    names = frozenset([declared[1], *declared[2].replace(",", " ").split()])
    return _Statement(text, names, used, "", is_always_needed or code.startswith(("if ", "for ")))


def tables() -> dict[str, Mapping[str, float | str] | str]:
    """Return what the script knows of records and states: tables, and names as text, each between blanks."""
    fields = msgspec.structs.fields(Record)
    texts = ["state", *(field.name for field in fields if field.type is str and field.name not in ("id", "args"))]
    numbers = [field for field in fields if field.type in (int, float, bool)]
    return {
        "RECORD_NUMBERS": {field.name: field.default + 0 for field in numbers},
        "RECORD_TEXTS": f" {' '.join(texts)} ",
        "LIVE_STATES": dict.fromkeys(LIVE_STATES, 1),
        "TERMINAL_STATES": dict.fromkeys(TERMINAL_STATES, 1),
        "STATUS_RANKS": STATUS_RANKS,
    }
