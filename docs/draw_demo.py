"""Draws docs/demo.svg, a run of the demo on a terminal of 80 columns, for the README: `make recording`."""

from __future__ import annotations

import sys
from pathlib import Path

from terminal_pictures import add_prompt, animate, record

COMMAND = "ecs-queue demo --tasks 12"
COLUMNS, ROWS = 80, 40
TARGET = Path(__file__).parent / "demo.svg"


def main() -> None:
    """Run the demo and write the picture."""
    frames = record([sys.executable, "-m", "ecs_queue", *COMMAND.split()[1:]], COLUMNS, ROWS)
    title = "A run of the demo: the states of all requests while two workers launch them, and the end"
    TARGET.write_text(animate(add_prompt(frames, COMMAND), COLUMNS, title))


if __name__ == "__main__":
    main()
