"""The ini files that the documentation shows."""

from __future__ import annotations

import configparser
import re

import pytest

from tests.docs import DOCS, ROOT

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```ini\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED_BLOCK = re.compile(r"^(?: {4}\[[a-z_.=]+\]\n(?: {4}.*\n|\n)*)+", re.MULTILINE)


def find_examples() -> list[str]:
    texts = [page.read_text() for page in PAGES]
    indented = [re.sub(r"(?m)^ {4}", "", found) for text in texts for found in INDENTED_BLOCK.findall(text)]
    return [found for text in texts for found in BLOCK.findall(text)] + indented


@pytest.mark.parametrize("example", find_examples())
def test_no_comment_stands_behind_a_value(example: str) -> None:
    """The parser would take it as a part of the value."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(example)
    values = [value for section in parser.sections() for _, value in parser.items(section)]
    assert [value for value in values if re.search(r"(^|\s)[;#]", value)] == []


def test_the_examples_are_found() -> None:
    assert len(find_examples()) > 5
