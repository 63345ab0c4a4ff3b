"""The dead letters of the ledger in memory. The Redis form keeps them by the same rules in lua/35_letters.lua."""

from __future__ import annotations

import msgspec

from ecs_queue.ledger.base import DeadLetter
from ecs_queue.ledger.retention import DEAD_LETTERS_BYTES, DEAD_LETTERS_KEPT, DEAD_LETTERS_SECONDS


class Letters:
    """Bounded in number, bytes and age: the oldest go first. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._letters: dict[str, DeadLetter] = {}
        self._bytes = 0

    def bury(self, letter: DeadLetter, now: float) -> None:
        """Keep one; a key that is there stays as it is."""
        if letter.key not in self._letters:
            # Each a little later than the one before, so that their order is that of their burials.
            newest = max((other.at for other in self._letters.values()), default=0.0)
            at = max(now, round(newest + 1e-6, 6))
            self._letters[letter.key] = msgspec.structs.replace(letter, at=at)
            self._bytes += _size(letter)
            self.trim(now)

    def newest(self, limit: int, before: DeadLetter | None) -> list[DeadLetter]:
        """Newest first, those older than `before`."""
        ordered = sorted(self._letters.values(), key=_at, reverse=True)
        return [letter for letter in ordered if before is None or letter.at < before.at][:limit]

    def get(self, key: str) -> DeadLetter | None:
        """The letter of a key."""
        return self._letters.get(key)

    def drop(self, key: str) -> bool:
        """Whether it was there."""
        letter = self._letters.pop(key, None)
        if letter is not None:
            self._bytes -= _size(letter)
        return letter is not None

    def trim(self, now: float) -> None:
        """Drop what is beyond a bound."""
        while self._letters:
            oldest = min(self._letters.values(), key=_at)
            kept = len(self._letters)
            is_over = kept > DEAD_LETTERS_KEPT or (self._bytes > DEAD_LETTERS_BYTES and kept > 1)
            if not is_over and oldest.at > now - DEAD_LETTERS_SECONDS:
                return
            self.drop(oldest.key)


def _at(letter: DeadLetter) -> float:
    return letter.at


def _size(letter: DeadLetter) -> int:
    """As the Redis form counts: without the time of the burial."""
    return len(msgspec.json.encode(msgspec.structs.replace(letter, at=0.0)))
