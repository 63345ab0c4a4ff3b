"""The dead letters of the in-memory ledger. lua/35_dead_letters.lua has the same rules for Redis."""

from __future__ import annotations

import msgspec

from ecs_queue.ledger.base import DeadLetter
from ecs_queue.protocol.settings import MAX_DEAD_LETTER_AGE, MAX_DEAD_LETTER_BYTES, MAX_DEAD_LETTERS


class DeadLetterStore:
    """Dead letters bounded in number, bytes and age. The oldest are dropped first. Not thread-safe."""

    def __init__(self) -> None:
        self._dead_letters: dict[str, DeadLetter] = {}
        self._bytes = 0

    def add(self, dead_letter: DeadLetter, now: float) -> None:
        """Store a dead letter. An existing key stays as it is."""
        if dead_letter.key not in self._dead_letters:
            # Each a little later than the one before, so that the times give the order in which they were added.
            newest = max((other.added_at for other in self._dead_letters.values()), default=0.0)
            at = max(now, round(newest + 1e-6, 6))
            self._dead_letters[dead_letter.key] = msgspec.structs.replace(dead_letter, added_at=at)
            self._bytes += _stored_size(dead_letter)
            self.trim(now)

    def list_newest(self, limit: int, before: DeadLetter | None) -> list[DeadLetter]:
        """Return up to `limit`, newest first: those older than `before`."""
        ordered = sorted(self._dead_letters.values(), key=_added_at, reverse=True)
        return [each for each in ordered if before is None or each.added_at < before.added_at][:limit]

    def get(self, key: str) -> DeadLetter | None:
        """Return the dead letter of a key."""
        return self._dead_letters.get(key)

    def delete(self, key: str) -> bool:
        """Delete a dead letter; return whether it existed."""
        dead_letter = self._dead_letters.pop(key, None)
        if dead_letter is not None:
            self._bytes -= _stored_size(dead_letter)
        return dead_letter is not None

    def trim(self, now: float) -> None:
        """Drop the oldest that are beyond a bound."""
        while self._dead_letters:
            oldest = min(self._dead_letters.values(), key=_added_at)
            number = len(self._dead_letters)
            is_over = number > MAX_DEAD_LETTERS or (self._bytes > MAX_DEAD_LETTER_BYTES and number > 1)
            if not is_over and oldest.added_at > now - MAX_DEAD_LETTER_AGE:
                return
            self.delete(oldest.key)


def _added_at(dead_letter: DeadLetter) -> float:
    return dead_letter.added_at


def _stored_size(dead_letter: DeadLetter) -> int:
    """Bytes as Redis counts them: without the time at which it was added."""
    return len(msgspec.json.encode(msgspec.structs.replace(dead_letter, added_at=0.0)))
