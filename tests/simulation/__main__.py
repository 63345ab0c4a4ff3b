"""`python -m tests.simulation --seed N [--trace]` replays one seed; `--seeds N` runs many, from `--seed` on.

With `--warm` the simulation has warm pools and runners.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from tests.simulation.disabled_rules import PROTOCOL_RULES, disable_rule
from tests.simulation.scheduler import START
from tests.simulation.simulation import SimulationReport, simulate
from tests.simulation.warm import simulate_warm

#: The lines of history shown with a violation without --trace.
_SHOWN_LINES = 40


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 for a violation. The first seed with a violation ends the run."""
    options = _parser().parse_args(arguments)
    seeds = range(options.seed, options.seed + options.seeds)
    if options.warm:
        return _run(seeds, simulate_warm, options.trace, is_warm=True)
    rule = PROTOCOL_RULES.get(options.disable_rule)
    faults, policies = (rule.faults, rule.policies) if rule else (None, None)
    with ExitStack() as stack:
        if options.disable_rule:
            stack.enter_context(disable_rule(options.disable_rule))
        return _run(seeds, partial(simulate, faults=faults, policies=policies), options.trace)


def replay_command(seed: int, rule: str = "", *, is_warm: bool = False) -> str:
    """Return the command that replays the seed with its history."""
    more = f" --disable-rule {rule}" if rule else " --warm" if is_warm else ""
    return f"python -m tests.simulation --seed {seed} --trace{more}"


def _run(seeds: range, run: Callable[..., SimulationReport], trace: bool, *, is_warm: bool = False) -> int:
    started_at = time.perf_counter()
    steps = 0
    for seed in seeds:
        report = run(seed, trace=trace)
        steps += report.steps
        if report.violations:
            _show(report if trace else run(seed, trace=True), all_lines=trace, is_warm=is_warm)
            return 1
        if trace:
            _show(report, all_lines=True)
    seconds = time.perf_counter() - started_at
    print(f"{len(seeds)} seeds from {seeds.start} on, {steps} steps, {seconds:.1f} s: no violations")
    return 0


def _show(report: SimulationReport, *, all_lines: bool, is_warm: bool = False) -> None:
    lines = report.history if all_lines else report.history[-_SHOWN_LINES:]
    for at, source, event in lines:
        print(f"{at - START:11.3f} {source:<18} {event}")
    for violation in report.violations:
        print(f"seed {report.seed}: {violation}")
    if report.violations and not all_lines:
        print(f"the whole history: {replay_command(report.seed, is_warm=is_warm)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the (first) seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--trace", action="store_true", help="show every step: seconds, process/thread, event")
    parser.add_argument("--warm", action="store_true", help="with warm pools and runners")
    parser.add_argument("--disable-rule", choices=sorted(PROTOCOL_RULES), help="disable this rule of the protocol")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # as of `| head`
        sys.exit(1)
