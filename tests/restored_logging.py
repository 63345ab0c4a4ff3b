"""Undoes what a command that runs in this process has done to its logging."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored_logging() -> Iterator[None]:
    """Restore the handlers and levels at the end: a command sets up logging for its process, which is pytest's."""
    root, ours = logging.getLogger(), logging.getLogger("ecs_queue")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
