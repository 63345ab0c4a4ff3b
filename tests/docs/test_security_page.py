"""docs/security.md names tests that exist, in each row of its tables of threats."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs import DOCS, ROOT

#: A table's last column names tests: in full, or by the name alone where the section names their file.
_TABLE = re.compile(r"^\|[^\n]*\| test[^|\n]*\|\n\|---[^\n]*\n((?:\|[^\n]*\n)+)", re.MULTILINE)
_FILE = re.compile(r"`(tests/[\w/]+\.py)")
SECTIONS = [section for section in (DOCS / "security.md").read_text().split("\n## ") if _TABLE.search(section)]


@cache
def _tests_in(path: str) -> frozenset[str]:
    """The names of a file's tests, and of its classes: a row may name all tests of a class."""
    tree = ast.parse((ROOT / path).read_text())
    classes = frozenset(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    return classes | frozenset(
        f"{owner.name}::{node.name}" if isinstance(owner, ast.ClassDef) else node.name
        for owner in ast.walk(tree)
        for node in ast.iter_child_nodes(owner)
        if isinstance(node, ast.FunctionDef)
    )


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_every_row_of_threats_names_tests_that_exist(section: str) -> None:
    files = _FILE.findall(section)
    for row in "".join(_TABLE.findall(section)).splitlines():
        column = row.rsplit("|", 2)[1]
        assert _FILE.search(column) or "`test_" in column, row
        for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`", column):
            assert not name or name in _tests_in(path), f"{path}::{name}"
        for name in re.findall(r"`(test_\w+)`", column):
            assert any(name in _tests_in(path) for path in files), name


def test_the_page_has_its_tables() -> None:
    assert len(SECTIONS) > 5
