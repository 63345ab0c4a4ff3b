"""The baseline file, and the check of its ratios."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench import baseline
from bench.__main__ import main
from bench.measurement import Measurement


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = {"launches": [Measurement("one / boto3", "0.70", ">= 0.60", 0.7), Measurement("launches/s", "300")]}
    baseline.update(tmp_path / "figures.json", "2 cores", rows)
    assert baseline.read(tmp_path / "figures.json") == rows


def test_a_run_replaces_the_measurements_of_its_benchmarks_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    baseline.update(
        path,
        "2 cores",
        {"idle": [Measurement("a", "1")], "airflow": [Measurement("b", "2", "", 2.0), Measurement("c", "3")]},
    )
    baseline.update(path, "4 cores", {"airflow": [Measurement("b", "5", "", 5.0)], "quota": [Measurement("d", "4")]})
    assert baseline.read(path) == {
        "idle": [Measurement("a", "1")],
        "airflow": [Measurement("b", "5", "", 5.0)],
        "quota": [Measurement("d", "4")],
    }
    assert json.loads(path.read_text())["machines"] == {"idle": "2 cores", "airflow": "4 cores", "quota": "4 cores"}


def test_a_run_is_compared_with_the_file_as_it_was_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figures.json"
    baseline.update(
        path, "2 cores", {"airflow": [Measurement("a", "4.00", "", 4.0)], "quota": [Measurement("d", "1.00", "", 1.0)]}
    )
    module = ModuleType("bench.airflow")
    module.run = lambda _: [Measurement("a", "1.00", "", 1.0)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bench.airflow", module)
    monkeypatch.setattr(sys, "argv", ["bench", "airflow", "--json", str(path), "--check", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert baseline.read(path)["airflow"] == [Measurement("a", "1.00", "", 1.0)]


def test_a_ratio_that_fell_by_more_than_a_quarter_is_named() -> None:
    base = {
        "launches": [Measurement("a", "1.00", "", 1.0), Measurement("b", "4.00", "", 4.0), Measurement("figure", "12")]
    }
    now = {"launches": [Measurement("a", "0.76", "", 0.76), Measurement("b", "2.90", "", 2.9)]}
    assert baseline.regressions(base, now) == ["launches: b was 4.00 and is 2.90"]


def test_a_missing_ratio_is_named_unless_its_benchmark_did_not_run() -> None:
    base = {"launches": [Measurement("a", "1.00", "", 1.0)], "idle": [Measurement("c", "1.00", "", 1.0)]}
    assert baseline.regressions(base, {"launches": []}) == ["launches: a is not measured any more"]
