"""The table of faults in docs/airflow.md names a test for each, and each test of a fault."""

from __future__ import annotations

import ast
import re

from tests.docs import DOCS, ROOT

ROW = re.compile(r"^\| (\d+|Celery) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def read_fault_table() -> list[tuple[str, list[str]]]:
    """(number, names of tests) of each row."""
    text = (DOCS / "airflow.md").read_text()
    return [(number, re.findall(r"`(test_\w+)`", tests)) for number, tests in ROW.findall(text)]


def find_fault_tests() -> set[str]:
    """The names of the tests there are."""
    tree = ast.parse((ROOT / "tests" / "airflow" / "test_faults.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_fault_has_a_row_with_a_test() -> None:
    rows = read_fault_table()
    assert [number for number, _ in rows if number != "Celery"] == [str(number) for number in range(1, 18)]
    assert sum(number == "Celery" for number, _ in rows) >= 3
    assert all(names for _, names in rows)


def test_every_test_that_is_named_exists_and_bears_the_number() -> None:
    for number, names in read_fault_table():
        prefix = "test_celery_" if number == "Celery" else f"test_fault_{int(number):02}_"
        assert all(name.startswith(prefix) for name in names), (number, names)
        assert set(names) <= find_fault_tests(), (number, names)


def test_every_test_of_a_fault_is_named() -> None:
    named = {name for _, names in read_fault_table() for name in names}
    assert {name for name in find_fault_tests() if name.startswith(("test_fault_", "test_celery_"))} == named
