"""Another revision of this repository, checked out beside it, and the commands of a side's own `ecs-queue`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.stack import Stack

HERE = Path(__file__).parents[1]


def has_revision(revision: str) -> bool:
    """Return whether this is a repository with that commit."""
    git = ["git", "-C", str(HERE), "cat-file", "-e", f"{revision}^{{commit}}"]
    try:
        return subprocess.run(git, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:  # git is not installed
        return False


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a revision."""
    with tempfile.TemporaryDirectory(prefix="ecs-queue-revision-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def package_of(tree: Path) -> dict[str, str]:
    """Return the variables with which Python takes the package from `tree`."""
    # Without the second, Python would take the package from the working directory.
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def run_command(parts: Stack, *arguments: str) -> str:
    """Return what a command of the side's own `ecs-queue` prints."""
    command = [sys.executable, "-m", "ecs_queue", *arguments]
    done = subprocess.run(command, env={**os.environ, **parts.environ}, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def submit_lines(parts: Stack, line: str, number: int) -> None:
    """Submit a line of a task file, so often."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(f"{line}\n" * number)
        file.flush()
        run_command(parts, "submit", "--file", file.name)
