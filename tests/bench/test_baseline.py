"""The check of the benchmarks' ratios."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench import baseline
from bench.__main__ import main
from bench.row import Row


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = {"launches": [Row("one / boto3", "0.70", ">= 0.60", 0.7), Row("launches/s", "300")]}
    baseline.merge(tmp_path / "figures.json", "2 cores", rows)
    assert baseline.read(tmp_path / "figures.json") == rows


def test_a_run_replaces_the_figures_of_the_benches_that_ran_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    baseline.merge(path, "2 cores", {"idle": [Row("a", "1")], "airflow": [Row("b", "2", "", 2.0), Row("c", "3")]})
    baseline.merge(path, "4 cores", {"airflow": [Row("b", "5", "", 5.0)], "quota": [Row("d", "4")]})
    assert baseline.read(path) == {
        "idle": [Row("a", "1")],
        "airflow": [Row("b", "5", "", 5.0)],
        "quota": [Row("d", "4")],
    }
    assert json.loads(path.read_text())["machines"] == {"idle": "2 cores", "airflow": "4 cores", "quota": "4 cores"}


def test_a_file_with_one_machine_for_all_benches_is_read_and_merged_into(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    row = Row("a", "1.00", "", 1.0)
    path.write_text(json.dumps({"machine": "2 cores", "benches": {"idle": [row._asdict()]}}))
    assert baseline.read(path) == {"idle": [row]}
    baseline.merge(path, "4 cores", {"quota": [Row("d", "4")]})
    assert baseline.read(path) == {"idle": [row], "quota": [Row("d", "4")]}
    assert json.loads(path.read_text())["machines"] == {"idle": "2 cores", "quota": "4 cores"}


def test_a_run_is_compared_with_the_file_as_it_was_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figures.json"
    baseline.merge(path, "2 cores", {"airflow": [Row("a", "4.00", "", 4.0)], "quota": [Row("d", "1.00", "", 1.0)]})
    module = ModuleType("bench.airflow")
    module.run = lambda _: [Row("a", "1.00", "", 1.0)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bench.airflow", module)
    monkeypatch.setattr(sys, "argv", ["bench", "airflow", "--json", str(path), "--check", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert baseline.read(path)["airflow"] == [Row("a", "1.00", "", 1.0)]


def test_a_ratio_that_fell_by_more_than_a_quarter_is_named() -> None:
    base = {"launches": [Row("a", "1.00", "", 1.0), Row("b", "4.00", "", 4.0), Row("figure", "12")]}
    now = {"launches": [Row("a", "0.76", "", 0.76), Row("b", "2.90", "", 2.9)]}
    assert baseline.fallen(base, now) == ["launches: b was 4.00 and is 2.90"]


def test_a_ratio_that_is_gone_is_named_and_a_bench_that_did_not_run_is_not() -> None:
    base = {"launches": [Row("a", "1.00", "", 1.0)], "idle": [Row("c", "1.00", "", 1.0)]}
    assert baseline.fallen(base, {"launches": []}) == ["launches: a is not measured any more"]
