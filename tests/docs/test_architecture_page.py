"""docs/architecture.md and CONTRIBUTING.md name modules, functions, tests and imports that exist."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ecs_queue"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = {"architecture.md": ARCHITECTURE, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
#: `module:name` or `module:Class.member`, relative to the package.
REFERENCE = re.compile(r"`([a-z_]+(?:\.[a-z_]+)*):([A-Za-z_][\w.]*)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
REPOSITORY_PATH = re.compile(r"`((?:ecs_queue|tests|docs|conf|bench|examples)/[\w./-]*)`")


def section(title: str) -> str:
    """The text of one `##` section of the architecture page."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no section {title}"
    return found[1]


def read_import_table() -> dict[str, set[str]]:
    """Package -> the packages that it imports, as the page states."""
    rows = re.findall(r"^\| `(\w+)/?` \| [^|]+ \|([^|]*)\|$", section("Packages"), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a package is listed twice"
    return {package: set(re.findall(r"`(\w+)`", imports)) for package, imports in rows}


def read_layers() -> list[list[str]]:
    """The rows of the picture, from the top; the comment behind three blanks is left out."""
    found = re.search(r"```text\n(.*?)```", section("Packages"), re.DOTALL)
    assert found is not None, "no picture"
    return [re.split(r" {3,}", line)[0].split() for line in found[1].splitlines()]


def package_of(module: str) -> str:
    """`ecs_queue.worker.launcher` -> `worker`; the package's own `__init__` for `ecs_queue`."""
    return module.split(".")[1] if "." in module else "__init__"


def imported_modules(path: Path) -> Iterator[str]:
    """Every `ecs_queue...` module that a file imports, wherever in the file: in functions and for types, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "ecs_queue":
            yield from (f"ecs_queue.{alias.name}" for alias in node.names if is_module(f"ecs_queue.{alias.name}"))
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def read_imports() -> dict[str, set[str]]:
    """Package -> the packages that its files import."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        importer = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        imported = {package_of(name) for name in imported_modules(path) if name.split(".")[0] == "ecs_queue"}
        found[importer] |= imported - {importer}
    return found


@cache
def definitions(path: Path) -> frozenset[str]:
    """The names of a file: functions, classes with their members, and what is assigned at its top level."""
    return frozenset(_definitions(ast.parse(path.read_text(encoding="utf-8")).body))


def _definitions(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{member}" for member in _definitions(node.body))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_the_table_lists_the_imports_of_the_code() -> None:
    stated, imports = read_import_table(), read_imports()
    assert sorted(stated) == sorted(imports)
    differences = {name: f"imports {sorted(imports[name])}" for name in stated if stated[name] != imports[name]}
    assert differences == {}


def test_each_package_imports_only_from_the_rows_below_it() -> None:
    layers = read_layers()
    height = {package: -row for row, packages in enumerate(layers) for package in packages}
    assert height.keys() == read_import_table().keys()
    upward = [
        f"{importer} -> {imported}"
        for importer, packages in read_imports().items()
        for imported in packages
        if height[imported] >= height[importer]
    ]
    assert upward == []


@pytest.mark.parametrize("page", PAGES)
def test_every_function_that_is_named_exists(page: str) -> None:
    named = REFERENCE.findall(PAGES[page])
    assert len(named) > 5
    missing = []
    for module, name in named:
        path = PACKAGE.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not path.is_file() or name not in definitions(path):
            missing.append(f"{module}:{name}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_test_that_is_named_exists(page: str) -> None:
    assert [path for path in REPOSITORY_PATH.findall(PAGES[page]) if not (ROOT / path).exists()] == []
    tests = TEST.findall(PAGES[page])
    missing = [
        f"{path}::{name}"
        for path, name in tests
        if not any(found.rpartition(".")[2] == name for found in definitions(ROOT / path))
    ]
    assert missing == []


def test_every_module_of_the_table_of_modules_exists() -> None:
    """`protocol/record.py`, `states.py`: a name without a folder is a neighbour of the one before it."""
    table = section("Packages").partition("### Inside the packages")[2]
    missing = []
    for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE):
        folder = ""
        for name in re.findall(r"`([\w./]+)`", row):
            folder = name.rpartition("/")[0] if "/" in name.rstrip("/") else folder
            path = PACKAGE / (name if "/" in name.rstrip("/") or name.endswith("/") else f"{folder}/{name}")
            if not path.exists() and not (PACKAGE / folder / name).exists():
                missing.append(name)
    assert missing == []
