"""The journal: every envelope, decision and ECS answer as one typed, ordered, versioned event."""

from __future__ import annotations

from ecs_queue.journal.base import JournalEvent, JournalReader
from ecs_queue.journal.memory import MemoryJournal

__all__ = ["JournalEvent", "JournalReader", "MemoryJournal"]
