"""`replay FILE --offline --set-rules`: what other retry rules would have done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

JOURNAL = Path(__file__).parents[1] / "journal" / "golden" / "v1.jsonl"


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    """Where the rules stand."""
    return tmp_path / "rules.json"


def test_each_attempt_is_shown_that_would_have_gone_on_in_another_way(invoke: Invoke, rules_file: Path) -> None:
    rules = [{"on_exit_code": "3", "action": "retry", "counts_attempt": False, "delay": "5m"}]
    rules_file.write_text(json.dumps(rules))

    result = invoke("replay", str(JOURNAL), "--offline", "--set-rules", str(rules_file))

    assert result.exit_code == 1
    assert "failed, attempt 1" in result.stdout
    assert "ended\n" in result.stdout
    assert "launched again after 5 min, without using an attempt (rule 1)" in result.stdout


def test_as_json_each_is_a_line(invoke: Invoke, rules_file: Path) -> None:
    rules_file.write_text('[{"on_end": "never_started", "action": "fail"}]')
    result = invoke("replay", str(JOURNAL), "--offline", "--set-rules", str(rules_file), "--json")
    found = {line["id"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert found["never"]["recorded"]["retries"] is True
    assert found["never"]["now"] == {"retries": False, "counts_attempt": False, "wait": 0.0, "retry_rule": 1}
    assert "failed" not in found


def test_only_what_had_rules_differs_from_the_policies_alone(invoke: Invoke, rules_file: Path) -> None:
    rules_file.write_text("[]")
    result = invoke("replay", str(JOURNAL), "--offline", "--set-rules", str(rules_file), "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["warm"]


@pytest.mark.parametrize(("text", "said"), [("{", "JSON"), ('[{"action": "x"}]', "retry rule 1"), ("", "JSON")])
def test_a_file_without_rules_is_refused(invoke: Invoke, rules_file: Path, text: str, said: str) -> None:
    rules_file.write_text(text)
    result = invoke("replay", str(JOURNAL), "--offline", "--set-rules", str(rules_file))
    assert result.exit_code == 2
    assert f"--set-rules {rules_file}: " in result.stderr
    assert said in result.stderr or "line 1" in result.stderr


def test_it_is_for_offline_replays_only(invoke: Invoke, rules_file: Path) -> None:
    result = invoke("replay", str(JOURNAL), "--submit", "--set-rules", str(rules_file))
    assert result.exit_code == 2
    assert "--set-rules" in result.stderr
