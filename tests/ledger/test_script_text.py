"""Each operation's script has what the operation needs, and little else."""

from __future__ import annotations

import re

import pytest

from ecs_queue.ledger.script_text import operation_names, read_script_parts, render_script
from tests.protocol.settings import DEFAULT_SETTINGS

_ALL = "\n".join(read_script_parts().values())
_OPERATIONS = re.compile(r"^(?:function )?operations\.(\w+)", re.MULTILINE)
_DECLARED = re.compile(r"^local (?:function )?(\w+(?:, \w+)*)", re.MULTILINE)


def _declared_names(text: str) -> set[str]:
    return {name for names in _DECLARED.findall(text) for name in names.split(", ")}


def _used_names(text: str) -> set[str]:
    code = re.sub(r"""--.*|'[^']*'|"[^"]*"|^local \w+ = \{ .* \}$""", "", text, flags=re.MULTILINE)
    return set(re.findall(r"(?<![\w.:])[A-Za-z_]\w*", code))


@pytest.mark.parametrize("operation", operation_names())
def test_a_script_has_its_operation_and_every_statement_of_the_files_that_it_uses(operation: str) -> None:
    text = render_script(DEFAULT_SETTINGS, operation)
    assert _OPERATIONS.findall(text) == [operation]
    assert _used_names(text) & _declared_names(_ALL) <= _declared_names(text)
    assert not re.search(r"\b(SETTINGS|REASONS)\.", text)


def test_every_operation_of_the_files_has_a_script() -> None:
    assert operation_names() == sorted(_OPERATIONS.findall(_ALL))


def test_a_script_leaves_out_what_its_operation_does_not_use() -> None:
    assert len(render_script(DEFAULT_SETTINGS, "now")) < 0.2 * len(_ALL)
    assert "add_dead_letter" not in render_script(DEFAULT_SETTINGS, "put_and_claim")


def test_there_is_no_script_of_an_unknown_operation() -> None:
    with pytest.raises(ValueError, match="no operation fly"):
        render_script(DEFAULT_SETTINGS, "fly")
