"""`RunnerOperations` in Redis or Valkey: runner_calls.lua on one connection. Imports no client library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Protocol

from ecs_queue.errors import LedgerUnavailable, WriteNotDurable
from ecs_queue.protocol.runs import NoTurn, RunEnd, Turn
from ecs_queue.server_keys import slot_key

_SCRIPT = (files("ecs_queue.runs") / "runner_calls.lua").read_text()
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
#: The command that makes a write durable, by the ledger's `durability`; the last argument is in milliseconds.
_BARRIERS: dict[str, tuple[str | int, ...]] = {"server": (), "aof": ("WAITAOF", 1, 0), "replica": ("WAIT", 1)}


class ServerError(Exception):
    """The server's error in answer to a command, such as `NOSCRIPT No matching script`."""


class Connection(Protocol):
    """One connection to the server."""

    def call(self, commands: Sequence[Sequence[Any]], timeout: float) -> list[Any]:
        """Send commands, and return their answers in order.

        All of them go over the same connection; when it is lost, none is sent again. The next call may connect anew.

        Args:
            commands: Each a list of str, bytes and int.
            timeout: Seconds for all answers.

        Returns:
            Bytes, int, None or lists of them; a `ServerError` in place of the answer to a command that failed.

        Raises:
            LedgerUnavailable: The connection is lost, or an answer did not come in time.
        """
        ...


class RedisRunner:
    """See `RunnerOperations`.

    Args:
        connection: To the server; used by one thread at a time.
        prefix: What every key of the ledger begins with.
        durability: "server", "aof" or "replica".
        timeout: Seconds for an answer. A barrier waits for eight tenths of them.
        clock: For tests, in place of the server's.
    """

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        durability: str = "server",
        timeout: float = 5.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._barrier = _BARRIERS[durability]
        self._timeout = timeout
        self._clock = clock

    def next_turn(self, name: str, boot: str, arn: str, end: RunEnd | None) -> Turn | NoTurn:
        """See `RunnerOperations`."""
        return _decode_turn(self._call("next", name, boot, arn, *_encode_end(end)))

    def wait_for_turn(self, name: str, boot: str, arn: str, end: RunEnd | None, seconds: float) -> Turn | NoTurn:
        """See `RunnerOperations`."""
        # One after the other. If both were sent at once, the server would carry out the second one although the runner
        # may be frozen or disconnected by then: it would own the command for as long as ECS shows its task running.
        if not self._wait(name, seconds):
            return self.next_turn(name, boot, arn, end)
        call = ("next", name, boot, arn, *_encode_end(end))
        commands = [self._script_call(*call), *self._barrier_commands()]  # woken: mostly there is a command
        reply, *confirmed = self._connection.call(commands, self._timeout)
        if _is_script_missing(reply):
            return self.next_turn(name, boot, arn, end)
        for each in confirmed:
            _check_durable(_raise_error(each))
        return _decode_turn(_raise_error(reply))

    def beat(self, name: str, boot: str, turn: int) -> bool:
        """See `RunnerOperations`."""
        return bool(self._call("beat", name, boot, turn)[0] == b"cancel")

    def leave(self, name: str, boot: str, arn: str, end: RunEnd | None) -> bool:
        """See `RunnerOperations`."""
        return bool(self._call("leave", name, boot, arn, *_encode_end(end))[0] == b"leave")

    def wait_for_wake(self, name: str, seconds: float) -> None:
        """See `RunnerOperations`."""
        self._wait(name, seconds)

    def _wait(self, name: str, seconds: float) -> bool:
        """Wait for a wake-up; return whether one came."""
        command = ("BLPOP", f"{self._prefix}wake:{name}", f"{seconds:.3f}")
        return _raise_error(self._connection.call([command], seconds + self._timeout)[0]) is not None

    def _barrier_commands(self) -> list[Sequence[Any]]:
        return [(*self._barrier, int(800 * self._timeout))] if self._barrier else []

    def _call(self, *call: Any) -> Any:
        return self._confirm(self._run(*call), *call)

    def _confirm(self, reply: Any, *call: Any) -> Any:
        """The reply. What allows a start or an exit is durable: a barrier follows on the same connection."""
        # `wait` and `busy` allow neither; so the barrier follows in a second round trip, and only where it is needed.
        if reply[0] not in (b"turn", b"leave") or not self._barrier:
            return reply
        # The second call writes, too: the connection may be a new one, and a barrier waits only for the writes of its
        # own connection.
        commands = [self._script_call(*call), *self._barrier_commands()]
        reply, confirmed = self._connection.call(commands, self._timeout)
        _check_durable(_raise_error(confirmed))
        return _raise_error(reply)

    def _run(self, *call: Any) -> Any:
        reply = self._connection.call([self._script_call(*call)], self._timeout)[0]
        if _is_script_missing(reply):
            _raise_error(self._connection.call([("SCRIPT", "LOAD", _SCRIPT)], self._timeout)[0])
            reply = self._connection.call([self._script_call(*call)], self._timeout)[0]
        return _raise_error(reply)

    def _script_call(self, operation: str, name: str, boot: str, *arguments: Any) -> Sequence[Any]:
        clock = "" if self._clock is None else repr(self._clock())
        barrier = "1" if self._barrier else ""
        key = slot_key(self._prefix)
        return ("EVALSHA", _SHA, 1, key, operation, self._prefix, clock, barrier, name, boot, *arguments)


def _is_script_missing(reply: Any) -> bool:
    return isinstance(reply, ServerError) and str(reply).startswith("NOSCRIPT")


def _decode_turn(reply: Any) -> Turn | NoTurn:
    answer = reply[0].decode()
    if answer != "turn":
        return NoTurn(answer)
    turn, record_id, nonce, launch, payload, time_limit = (value.decode() for value in reply[1:])
    return Turn(
        turn=int(turn),
        id=record_id,
        nonce=nonce,
        launch=int(launch),
        payload=payload,
        time_limit=float(time_limit or 0),
    )


def _encode_end(end: RunEnd | None) -> tuple[str, ...]:
    if end is None:
        return ("",) * 5
    return str(end.turn), str(end.exit_code), "1" if end.cancelled else "", end.mac, end.assignment


def _raise_error(reply: Any) -> Any:
    if isinstance(reply, ServerError):
        raise LedgerUnavailable(f"the ledger failed: {reply}; check the runner's server URL and user") from None
    return reply


def _check_durable(confirmed: Any) -> None:
    number = confirmed[0] if isinstance(confirmed, list) else confirmed
    if int(number) < 1:
        raise WriteNotDurable("the server did not confirm in time that its answer is durable; ask again")
