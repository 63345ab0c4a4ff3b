"""The command `ecs-queue`, also as `python -m ecs_queue`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command. A runner starts in every task of a warm queue: it does without the rest of the command line."""
    if sys.argv[1:] == ["runner"]:
        from ecs_queue.runner.main import main as run_runner

        sys.exit(run_runner())
    from ecs_queue.cli.main import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
