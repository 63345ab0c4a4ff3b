"""Plots the ratios of the benchmarks as an SVG: `python -m bench.plot RESULTS.json OUT.svg`."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench import baseline

#: One colour per benchmark, distinct for the colour-blind too (Paul Tol's "bright").
_COLOURS = ("#4477aa", "#228833", "#ccbb44", "#aa3377", "#66ccee", "#ee6677")
_AXIS_TICKS = (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def main() -> None:
    """Draw every measurement with a ratio."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    found = baseline.read(source).items()
    ratios = [(benchmark, row.name, row.ratio) for benchmark, rows in found for row in rows if row.ratio is not None]
    if not ratios:
        sys.exit(f"{source} has no ratio to draw")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    mpl.rcParams["svg.hashsalt"] = "ecs-queue"  # the same values give the same file
    figure = Figure(figsize=(9, 0.42 * len(ratios) + 1.2), layout="constrained")
    _draw(figure.add_subplot(), ratios)
    figure.savefig(target, metadata={"Date": None})


def _draw(axes: Axes, ratios: list[tuple[str, str, float]]) -> None:
    """Bars that start at 1, a gap and another colour between benchmarks."""
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _, _ in ratios))
    positions = [0.0]
    for (before, _, _), (benchmark, _, _) in pairwise(ratios):
        positions.append(positions[-1] - (1.0 if benchmark == before else 1.5))
    values = [ratio for _, _, ratio in ratios]
    colours = [_COLOURS[benchmarks.index(benchmark) % len(_COLOURS)] for benchmark, _, _ in ratios]
    bars = axes.barh(positions, [value - 1 for value in values], left=1, height=0.7, color=colours)
    axes.set_yticks(positions, [f"{name} ({benchmark})" for benchmark, name, _ in ratios])
    axes.set_xscale("log")
    low, high = min(0.5, *values), max(2.0, *values)
    axes.set_xlim(low / 1.6, high * 1.8)
    axes.bar_label(bars, labels=[f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values], padding=3)
    axes.axvline(1, color="#888888", linewidth=1)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _AXIS_TICKS if low / 1.6 <= tick <= high * 1.8]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("ratios, each measured in one run; more is better")


if __name__ == "__main__":
    main()
