"""What a runner calls of the ledger: the interface that `RedisRunner` and the in-memory ledger implement.

Every operation is atomic, on the runner's own run, and safe to repeat, to lose and to arrive late. docs/protocol.md has
the rules, `ecs_queue.protocol.runs` the types.

A runner's name is that of the launch that started it. Its boot is a random id that each runner process makes up when
it starts: the first process that calls binds the run, and the answer to any other is to leave.
"""

from __future__ import annotations

from typing import Protocol

from ecs_queue.protocol.runs import NoTurn, RunEnd, Turn


class RunnerOperations(Protocol):
    """Every method may raise `LedgerUnavailable` (then its effect is unknown: call again) or `MissingRight`."""

    def next_turn(self, name: str, boot: str, arn: str, end: RunEnd | None) -> Turn | NoTurn:
        """Ask for a command.

        A `Turn` and `NoTurn.LEAVE` are durable when returned: the command may be started, the process may exit.
        Start only a turn that this process has not started yet: until its end is reported, each call returns it again.

        Args:
            name: The runner's.
            boot: The process's.
            arn: Of the ECS task that the process runs in.
            end: Of the last command that this process has started. It must be given until the next one is started: a
                fail-over of the server may undo that it was taken.

        Raises:
            WriteNotDurable: The server did not confirm the answer. Ask again, and start nothing.
        """
        ...

    def beat(self, name: str, boot: str, turn: int) -> bool:
        """Report that the command of this turn runs, every runner_ttl / 3 seconds; return whether to cancel it."""
        ...

    def leave(self, name: str, boot: str, arn: str, end: RunEnd | None) -> bool:
        """Ask to exit, with the arguments of `next_turn`.

        Returns:
            True: durable, nothing is assigned any more, exit. False: there is a command, call `next_turn`.

        Raises:
            WriteNotDurable: The server did not confirm the answer. Ask again, and do not exit.
        """
        ...

    def wait_for_turn(self, name: str, boot: str, arn: str, end: RunEnd | None, seconds: float) -> Turn | NoTurn:
        """Wait until launchers have changed the run, at most `seconds`, then do what `next_turn` does."""
        ...

    def wait_for_wake(self, name: str, seconds: float) -> None:
        """Wait until launchers have changed the run, at most `seconds`. `next_turn` or `beat` returns which change.

        A change may be announced late, twice or not at all.
        """
        ...
