"""The ratios of a run as an SVG: `python -m bench.plot FIGURES.json OUT.svg`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench import baseline


def main() -> None:
    """Draw every row that has a ratio, ours beside another's."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    found = [(row.what, row.ratio) for rows in baseline.read(source).values() for row in rows if row.ratio is not None]
    if not found:
        sys.exit(f"{source} has no ratio to draw")
    names, ratios = [what for what, _ in found], [ratio for _, ratio in found]
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    figure = Figure(figsize=(9, 0.5 * len(found) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(names[::-1], ratios[::-1], color="#4477aa")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("ours / other, same run (right of the line: ours is better)")
    axes.margins(x=0.15)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
