"""The journal as commands read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.journal import JournalReader


@contextmanager
def open_journal_reader(config: Config) -> Iterator[JournalReader]:
    """The journal of the namespace, closed at the end. One that nobody writes is empty."""
    from ecs_queue.journal import open_journal

    with closing(open_journal(config)) as journal:
        yield journal
