"""The benchmarks that the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS
from tests.docs import ROOT

_PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
#: `python -m bench NAME`; modules such as `bench.plot` have commands of their own.
_COMMAND = re.compile(r"python -m bench ([a-z][\w-]*)|BENCH_ARGS=\"?([a-z][\w-]*)")


def test_the_page_has_a_row_for_each_benchmark() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    table = page.partition("| name | what it measures |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(BENCHMARKS)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_each_command_of_the_documentation_names_a_benchmark(page: Path) -> None:
    named = {(first or second).replace("-", "_") for first, second in _COMMAND.findall(page.read_text())}
    assert named <= BENCHMARKS.keys()


def test_the_documentation_has_such_commands() -> None:
    assert sum(len(_COMMAND.findall(page.read_text())) for page in _PAGES) > 5
