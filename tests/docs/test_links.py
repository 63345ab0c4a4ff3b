"""Links and citations lead to files that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import ecs_queue
from tests.docs import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
#: Folders with files of the project; what tests write stays outside them.
FOLDERS = ("ecs_queue", "docs", "conf", "bench", "examples", "tests", ".ci")
CITATION = re.compile(r"(?<![\w./{}<>*$-])((?:[\w-]+/)*[\w-]+\.(?:md|py|lua|cfg|acl|svg))(?![\w/]|\.\w)")
#: Files of users in examples.
EXAMPLES = {"etl.py", "warehouse/nightly.py", "OUT.svg"}


def find_project_files() -> list[Path]:
    """Every file of the project, relative to its root."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path.relative_to(ROOT) for path in (*found, *ROOT.glob("*.*"), ROOT / "Makefile")]


def find_unknown_citations(path: Path, known: set[str]) -> list[str]:
    """The files that a file names and that do not exist: with a folder or without, from any folder on.

    In tests only pages (`*.md`) are citations; other names are files that the tests write.
    """
    cited = CITATION.findall((ROOT / path).read_text(encoding="utf-8"))
    if path.parts[0] == "tests":
        cited = [name for name in cited if name.endswith(".md")]
    return [f"{path}: {name}" for name in cited if name not in known | EXAMPLES]


def test_every_file_that_is_cited_exists() -> None:
    files = find_project_files()
    known = {"/".join(path.parts[start:]) for path in files for start in range(len(path.parts))}
    texts = [path for path in files if path.suffix in (".py", ".md", ".lua", ".cfg", ".toml", ".acl")]
    assert [unknown for path in texts for unknown in find_unknown_citations(path, known)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_every_page_of_the_docs_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    unreached = [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme]
    assert unreached == []


def test_the_worker_policy_names_no_wildcard_action_and_no_wildcard_resource_but_where_aws_has_none() -> None:
    policy = json.loads((ROOT / "conf" / "iam-worker-policy.json").read_text())
    for statement in policy["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        if statement["Resource"] == "*":  # ListTasks has no resource but container instances
            assert actions == ["ecs:ListTasks"]
            assert "ecs:cluster" in json.dumps(statement["Condition"])


def test_every_public_name_can_be_imported() -> None:
    for name in ecs_queue.__all__:
        assert getattr(ecs_queue, name).__name__ == name
