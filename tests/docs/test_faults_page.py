"""docs/faults.md names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.docs import DOCS, ROOT

PAGE = DOCS / "faults.md"


@cache
def _tests_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)", PAGE.read_text())

    assert len(named) > 30
    assert [f"{path}::{name}" for path, name in named if name not in _tests_in(path)] == []


def test_every_row_names_a_test() -> None:
    rows = re.findall(r"^\|.*\|$", PAGE.read_text().split("## Poison and abuse")[1], re.MULTILINE)
    faults = [row for row in rows if not row.startswith(("|---", "| what goes wrong"))]

    assert [row for row in faults if "::test_" not in row.rsplit("|", 2)[1]] == []
