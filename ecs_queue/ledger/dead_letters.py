"""The dead letters of the ledger in memory. The Redis form keeps them by the same rules in lua/35_dead_letters.lua."""

from __future__ import annotations

import msgspec

from ecs_queue.ledger.base import DeadLetter
from ecs_queue.protocol.settings import MAX_DEAD_LETTER_AGE, MAX_DEAD_LETTER_BYTES, MAX_DEAD_LETTERS


class DeadLetterStore:
    """Bounded in number, bytes and age: the oldest go first. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._dead_letters: dict[str, DeadLetter] = {}
        self._bytes = 0

    def add(self, dead_letter: DeadLetter, now: float) -> None:
        """Keep one; a key that is there stays as it is."""
        if dead_letter.key not in self._dead_letters:
            # Each a little later than the one before, so that their order is that of their burials.
            newest = max((other.added_at for other in self._dead_letters.values()), default=0.0)
            at = max(now, round(newest + 1e-6, 6))
            self._dead_letters[dead_letter.key] = msgspec.structs.replace(dead_letter, added_at=at)
            self._bytes += _stored_size(dead_letter)
            self.trim(now)

    def list_newest(self, limit: int, before: DeadLetter | None) -> list[DeadLetter]:
        """Newest first, those older than `before`."""
        ordered = sorted(self._dead_letters.values(), key=_added_at, reverse=True)
        return [letter for letter in ordered if before is None or letter.added_at < before.added_at][:limit]

    def get(self, key: str) -> DeadLetter | None:
        """The letter of a key."""
        return self._dead_letters.get(key)

    def delete(self, key: str) -> bool:
        """Whether it was there."""
        letter = self._dead_letters.pop(key, None)
        if letter is not None:
            self._bytes -= _stored_size(letter)
        return letter is not None

    def trim(self, now: float) -> None:
        """Drop what is beyond a bound."""
        while self._dead_letters:
            oldest = min(self._dead_letters.values(), key=_added_at)
            kept = len(self._dead_letters)
            is_over = kept > MAX_DEAD_LETTERS or (self._bytes > MAX_DEAD_LETTER_BYTES and kept > 1)
            if not is_over and oldest.added_at > now - MAX_DEAD_LETTER_AGE:
                return
            self.delete(oldest.key)


def _added_at(dead_letter: DeadLetter) -> float:
    return dead_letter.added_at


def _stored_size(dead_letter: DeadLetter) -> int:
    """As the Redis form counts: without the time of the burial."""
    return len(msgspec.json.encode(msgspec.structs.replace(dead_letter, added_at=0.0)))
