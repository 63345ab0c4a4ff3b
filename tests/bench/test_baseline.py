"""The check of the benchmarks' ratios."""

from __future__ import annotations

from pathlib import Path

from bench import baseline
from bench.row import Row


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = {"launches": [Row("one / boto3", "0.70", ">= 0.60", 0.7), Row("launches/s", "300")]}
    baseline.write(tmp_path / "figures.json", "2 cores", rows)
    assert baseline.read(tmp_path / "figures.json") == rows


def test_a_ratio_that_fell_by_more_than_a_quarter_is_named() -> None:
    base = {"launches": [Row("a", "1.00", "", 1.0), Row("b", "4.00", "", 4.0), Row("figure", "12")]}
    now = {"launches": [Row("a", "0.76", "", 0.76), Row("b", "2.90", "", 2.9)]}
    assert baseline.fallen(base, now) == ["launches: b was 4.00 and is 2.90"]


def test_a_ratio_that_is_gone_is_named_and_a_bench_that_did_not_run_is_not() -> None:
    base = {"launches": [Row("a", "1.00", "", 1.0)], "idle": [Row("c", "1.00", "", 1.0)]}
    assert baseline.fallen(base, {"launches": []}) == ["launches: a is not measured any more"]
