"""`python -m tests.fuzz TARGET --seconds 600 --seed 1`: ends with 1 and the shrunk example if one fails."""

from __future__ import annotations

import argparse
import logging
import time

from tests.fuzz.runner import run_for
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (600)")
    parser.add_argument("--seed", type=int, default=None, help="of the first round; the next ones follow (the time)")
    options = parser.parse_args()
    first_seed = int(time.time()) if options.seed is None else options.seed
    print(f"{options.target}: seed {first_seed}, {options.seconds:g} s", flush=True)
    logging.basicConfig(level=logging.CRITICAL)  # each skipped event is a line
    with TARGETS[options.target]() as target:
        ran, took = run_for(target, seconds=options.seconds, first_seed=first_seed)
    print(f"{options.target}: {ran} examples in {took:.0f} s, {ran / took:.0f}/s, none failed")


if __name__ == "__main__":
    main()
