"""The journal: every envelope, decision and ECS result as one typed, ordered, versioned event.

`base` has the shape of an event and the protocols. `open_journal` reads; a `JournalRecorder` over
`open_journal_store` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecs_queue.errors import UsageError
from ecs_queue.journal.base import JournalEvent, JournalReader, JournalStore
from ecs_queue.journal.encoder import open_event_encoder
from ecs_queue.journal.recorder import JournalRecorder
from ecs_queue.journal.redis import RedisJournal

if TYPE_CHECKING:
    from ecs_queue.config import Config

__all__ = [
    "JournalEvent",
    "JournalReader",
    "JournalRecorder",
    "JournalStore",
    "RedisJournal",
    "check_has_journal",
    "open_event_encoder",
    "open_journal",
    "open_journal_store",
]


def check_has_journal(config: Config) -> None:
    """Raise `UsageError` when the ledger is memory://, which keeps no journal."""
    if config.ledger_url.startswith("memory:"):
        raise UsageError("a ledger in memory has no journal: set ledger_url to redis://HOST:PORT/0")


def open_journal(config: Config) -> RedisJournal:
    """Return the namespace's journal on the ledger's server. No connection is made yet.

    Raises:
        UsageError: the ledger is memory://, which keeps no journal.
        ConfigError: encryption_keys are set and `cryptography` is not installed.
    """
    from ecs_queue.config.keyring import open_keyring
    from ecs_queue.redis_connection import connect
    from ecs_queue.server_keys import namespace_prefix

    check_has_journal(config)
    return RedisJournal(
        connect(
            config.ledger_url,
            socket_timeout=config.socket_timeout_seconds,
            max_connections=4,
            slot_key=namespace_prefix(config.namespace),
            iam=config.ledger_iam,
        ),
        open_keyring(config),
        max_bytes=config.journal_megabytes * 1024 * 1024,
        max_element_bytes=config.journal_element_bytes,
        retention_seconds=config.journal_retention_seconds,
    )


def open_journal_store(config: Config) -> JournalStore | None:
    """Return the journal that workers and clients write; None when it is off or the ledger is in memory."""
    if not config.journal or config.ledger_url.startswith("memory:"):
        return None
    return open_journal(config)
