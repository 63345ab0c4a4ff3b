"""Prints constraints for pip that pin what ecs-queue requires to the lowest version that setup.cfg admits.

    python -m tests.lowest > constraints.txt

`make test-lowest` installs with them: where two bounds cannot be had together, pip refuses them.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

SETUP = Path(__file__).parents[1] / "setup.cfg"
#: Whose requirements users install; those of tests may be of any version.
EXTRAS = ("local", "encryption", "curl", "metrics", "otel")

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?P<bounds>.*)")
_LOWER_BOUND = re.compile(r">=\s*([^,\s]+)")


class NoLowerBound(ValueError):  # noqa: N818
    """A requirement of setup.cfg has no `>=`."""


def constraints(setup: str) -> Iterator[str]:
    """Yield `name==version` for each requirement in the text of a setup.cfg.

    Raises:
        NoLowerBound: A requirement does not say which versions work.
    """
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(setup)
    lists = [parser["options"]["install_requires"], *(parser["options.extras_require"][name] for name in EXTRAS)]
    for line in "\n".join(lists).splitlines():
        requirement = line.partition("#")[0].strip()
        if not requirement:
            continue
        found = _REQUIREMENT.fullmatch(requirement)
        lower = _LOWER_BOUND.search(found["bounds"]) if found else None
        if found is None or lower is None:
            raise NoLowerBound(f"{requirement}: expected NAME >= VERSION in setup.cfg, found no lower bound")
        yield f"{found['name']}=={lower[1]}"


if __name__ == "__main__":
    print(*constraints(SETUP.read_text()), sep="\n")
