"""Stores measurements as JSON, and checks that no ratio has fallen.

Only ratios are compared: both sides of a ratio were measured in the same run, so another machine gives nearly the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measurement import Measurement

#: A ratio may fall by this share before the check fails; a busy machine causes less.
TOLERANCE = 0.25


def update(path: Path, machine: str, measurements: Mapping[str, Sequence[Measurement]]) -> None:
    """Replace the measurements of the benchmarks that ran, and keep those of the others.

    So one file has benchmarks of several environments. `machine` describes where these ran.
    """
    known = _load(path) if path.exists() else {"machines": {}, "benchmarks": {}}
    known["machines"].update(dict.fromkeys(measurements, machine))
    known["benchmarks"].update({name: [row._asdict() for row in found] for name, found in measurements.items()})
    path.write_text(json.dumps(known, indent=1) + "\n")


def read(path: Path) -> dict[str, list[Measurement]]:
    """Return all measurements by benchmark."""
    return {name: [Measurement(**row) for row in rows] for name, rows in _load(path)["benchmarks"].items()}


def regressions(base: Mapping[str, Sequence[Measurement]], now: Mapping[str, Sequence[Measurement]]) -> list[str]:
    """Return a sentence for each ratio that fell by more than a quarter, or is missing although its benchmark ran."""
    problems = []
    for name, rows in base.items():
        if name not in now:
            continue
        found = {row.name: row.ratio for row in now[name]}
        for row in rows:
            if row.ratio is None:
                continue
            ratio = found.get(row.name)
            if ratio is None:
                problems.append(f"{name}: {row.name} is not measured any more")
            elif ratio < row.ratio * (1 - TOLERANCE):
                problems.append(f"{name}: {row.name} was {row.ratio:.2f} and is {ratio:.2f}")
    return problems


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
