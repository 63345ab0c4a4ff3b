"""How the commands of a runner share its task's time, from the events of a journal. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec

#: Commands given to a runner whose ends are not known yet: one, and those whose events arrive in another order.
_MAX_OPEN = 16
#: How many groups of one runner are counted apart, and the group of all others: memory has a bound.
_MAX_GROUPS, OTHER_GROUPS = 1000, "(other)"


class Part(NamedTuple):
    """Seconds of a task that count under a group; `use` is `run` or `idle`."""

    group: str
    seconds: float
    use: str = "run"


class RunnerTime(msgspec.Struct):
    """What the events of a runner say of its commands. Seconds, by the clock of the ledger.

    Attributes:
        busy: The seconds of the commands that have ended, by group; without those of the first one.
        first_ended_at, first_group: When the first one had ended, and its group; 0: not known.
        begun: When later commands were given to it whose ends are not known, the oldest first.
        last_turn: The number of the last command that has ended.
        is_complete: No event is missing so far.
    """

    busy: dict[str, float] = msgspec.field(default_factory=dict)
    first_ended_at: float = 0.0
    first_group: str = ""
    begun: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=_MAX_OPEN))
    last_turn: int = 0
    is_complete: bool = True

    def begin_command(self, at: float) -> None:
        """Note that a second or later command was given to it."""
        self.begun.append(at)

    def end_command(self, turn: object, at: float, group: str) -> None:
        """Note that the command of this number has ended; a second word about it changes nothing."""
        if not isinstance(turn, int) or turn <= self.last_turn:
            return
        self.is_complete &= turn == self.last_turn + 1
        self.last_turn = turn
        if turn == 1:
            self.first_ended_at, self.first_group = at, group
        elif self.begun:
            group = group if group in self.busy or len(self.busy) < _MAX_GROUPS else OTHER_GROUPS
            self.busy[group] = self.busy.get(group, 0.0) + max(0.0, at - self.begun.popleft())
        else:
            self.is_complete = False

    def end_with_command(self, at: float, group: str) -> None:
        """Note that its task has stopped with a command that was not its first one."""
        self.is_complete &= self.last_turn > 0 and len(self.begun) == 1
        self.end_command(self.last_turn + 1, at, group)

    def end_idle(self, commands: int) -> None:
        """Note that its task has stopped without a command, after this number of them."""
        self.is_complete &= self.last_turn == commands

    def split(self, seconds: float, began: float, group: str) -> list[Part] | None:
        """Share `seconds` of a task that began at `began`; None when events are missing.

        The first command counts from the beginning on, as a task of its own. Idle time counts under the group of all
        commands if that is one, else under `group`.
        """
        if not self.is_complete or (self.last_turn and not began):
            return None
        busy = dict(self.busy)
        if self.last_turn:
            first = max(0.0, self.first_ended_at - began)
            busy[self.first_group] = busy.get(self.first_group, 0.0) + first
        total = sum(busy.values())
        scale = min(1.0, seconds / total) if total else 1.0
        parts = [Part(name, used * scale) for name, used in busy.items()]
        idle = seconds - sum(part.seconds for part in parts)
        if idle > 0:
            parts.append(Part(next(iter(busy)) if len(busy) == 1 else group, idle, "idle"))
        return parts
