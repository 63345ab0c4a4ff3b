"""README and docs/ point at things that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import ecs_queue

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_every_page_of_the_docs_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    unreached = [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme]
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
