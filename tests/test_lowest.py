"""The constraints of `make test-lowest`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.lowest import SETUP, NoLowerBound, constraints

TEXT = """
[options]
install_requires =
    # a comment
    kombu[redis] >= 5.7, < 5.8
    {requirement}
[options.extras_require]
local = aiohttp>=3.10
encryption =
curl =
metrics =
otel =
"""


def imported(node: ast.stmt) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_each_requirement_is_pinned_to_its_lower_bound() -> None:
    assert list(constraints(TEXT.format(requirement="click < 9, >= 8.2"))) == [
        "kombu==5.7",
        "click==8.2",
        "aiohttp==3.10",
    ]


def test_a_requirement_without_a_lower_bound_is_refused() -> None:
    with pytest.raises(NoLowerBound, match="rich < 16: expected NAME >= VERSION"):
        list(constraints(TEXT.format(requirement="rich < 16")))


def test_every_requirement_of_the_package_has_one() -> None:
    assert {"kombu", "redis", "botocore", "aiohttp"} <= {
        line.partition("=")[0] for line in constraints(SETUP.read_text())
    }


def test_no_module_of_its_tests_imports_at_its_head_what_it_does_not_install() -> None:
    root = SETUP.parent
    (paths,) = re.findall(r"addprefix tests/,((?:[^)\\]|\\\n)+)\)", (root / "Makefile").read_text())
    modules: list[Path] = []
    for path in paths.replace("\\", "").split():
        named = root / "tests" / path
        modules += named.rglob("*.py") if named.is_dir() else [named]
    assert len(modules) > 50
    found = [
        f"{module.relative_to(root)}: {name}"
        for module in modules
        for node in ast.parse(module.read_text()).body
        for name in imported(node)
        if name.partition(".")[0] in {"airflow", "celery", "moto", "statsd"}
    ]
    assert found == []
