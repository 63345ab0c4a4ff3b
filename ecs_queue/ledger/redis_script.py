"""The connection to Redis or Valkey and the ledger's scripts on it: one round trip per batch, errors wrapped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from typing import Any, NamedTuple

import redis
import redis.exceptions

from ecs_queue.error_text import error_text
from ecs_queue.errors import LedgerUnavailable, WriteNotDurable
from ecs_queue.ledger.batching import Call, CallBatcher
from ecs_queue.ledger.script_text import render_script
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.redis_connection import suspect_primary
from ecs_queue.server_keys import slot_key
from ecs_queue.server_rights import LEDGER_URL_KEY, describe_failure, find_missing_right

#: Bounds the memory that one round trip takes of client and server.
_MAX_CALLS_PER_ROUND_TRIP = 1000
#: Calls of one operation, and their arguments, in one run of the script: a call takes some 20 us, and the server serves
#: no other client during a run.
_MAX_CALLS_PER_RUN, _MAX_ARGUMENTS_PER_RUN = 50, 1000

_SERVER_FULL_ADVICE = (
    "Give the server more memory (maxmemory), or keep finished requests for a shorter time (retention_seconds). Tasks "
    "that were launched are followed to their end meanwhile. Submit again with the same id"
)
_READ_ONLY_ADVICE = (
    "ledger_url leads to a replica; after a fail-over it must lead to the new primary. Workers retry by themselves"
)


def barrier_command(durability: str, milliseconds: int) -> tuple[Any, ...]:
    """Return the command that waits until a write is durable (docs/protocol.md, "When the ledger loses a second").

    () for the durability "server", which waits for nothing.
    """
    commands = {"aof": ("WAITAOF", 1, 0, milliseconds), "replica": ("WAIT", 1, milliseconds)}
    return commands.get(durability, ())


@contextmanager
def wrap_redis_errors(keys: str = "the keys of the ledger") -> Iterator[None]:
    """Raise what redis-py raises as LedgerUnavailable, or as MissingRight. No message contains the URL or its password.

    Args:
        keys: The pattern of the keys that the server's user needs.
    """
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        raise LedgerUnavailable(f"the ledger is full: {error_text(error)}. {_SERVER_FULL_ADVICE}") from error
    except redis.exceptions.ReadOnlyError as error:
        raise LedgerUnavailable(f"the ledger takes no writes: {error_text(error)}. {_READ_ONLY_ADVICE}") from error
    except (redis.exceptions.RedisError, OSError) as error:
        missing_right = find_missing_right(error, "ledger", keys)
        if missing_right is not None:
            raise missing_right from error
        text = error_text(error).removesuffix(".")
        raise LedgerUnavailable(f"the ledger failed: {describe_failure(text, LEDGER_URL_KEY)}") from error


def is_wrong_type(reply: Any) -> bool:
    """Return whether this is the server's error for a key that holds another type than the command needs."""
    return isinstance(reply, redis.exceptions.ResponseError) and str(reply).startswith("WRONGTYPE")


@contextmanager
def empty_if_wrong_type() -> Iterator[list[Any]]:
    """Give a list to fill from a key; it stays empty when the key holds another type than the command needs."""
    found: list[Any] = []
    try:
        yield found
    except redis.exceptions.ResponseError as error:
        if not is_wrong_type(error):
            raise


def read_info(client: Any) -> Mapping[str, Any]:
    """Return the answer of INFO; empty when this user may not call it."""
    try:
        found: Mapping[str, Any] = client.info()
    except redis.exceptions.ResponseError:  # also where a service has renamed or removed the command
        return {}
    return found


def read_config_value(client: Any, name: str) -> str | None:
    """Return a setting of the server; None when CONFIG is not allowed: managed services forbid it."""
    try:
        found = client.config_get(name).get(name)
    except redis.exceptions.ResponseError:
        return None
    return None if found is None else str(found)


class _ScriptRun(NamedTuple):
    """One run of the script: several calls with `arguments_per_call` arguments each, or, if that is 0, one call."""

    operation: str
    arguments_per_call: int
    arguments: Sequence[Any]

    def split_reply(self, reply: Any) -> list[Any]:
        """Return the reply to each call; each is the error if the run as such failed."""
        if not self.arguments_per_call:
            return [reply]
        calls = len(self.arguments) // self.arguments_per_call
        return [reply] * calls if isinstance(reply, Exception) else list(reply)


class Script:
    """Runs the operations' scripts for one namespace. Thread-safe.

    Args:
        client: The connection pool.
        prefix: What every key begins with.
        settings: The numbers that the scripts are rendered with.
        durability: "server", "aof" or "replica": what a durable run waits for.
        barrier_seconds: How long it waits at most; below the socket's time-out.
        clock: For tests, in place of the server's.
    """

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        settings: ProtocolSettings,
        durability: str,
        barrier_seconds: float,
        clock: Callable[[], float] | None,
    ) -> None:
        self._redis: Any = client  # redis-py's own types mix its sync and async replies
        self._prefix = prefix
        self._keys = f"{prefix}*"
        self._slot_key = slot_key(prefix)
        self._durability = durability
        self._barrier = barrier_command(durability, int(barrier_seconds * 1000))
        self._clock = clock
        self._batcher = CallBatcher(self._send_batch, _MAX_CALLS_PER_RUN)
        self._settings = settings
        self._digests: dict[str, str] = {}  # by operation

    def run_one(self, *call: Any) -> Any:
        """Return the reply to one call."""
        return self.run_many([call])[0]

    def run_many(self, calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        """Run calls, each atomic, a thousand in one round trip; return their replies in order.

        Calls of one operation take effect in order. On a server that does not know the scripts yet, other operations'
        may take effect before them.

        Raises:
            LedgerUnavailable: It is unknown which of the calls took effect.
            WriteNotDurable: `durable`, and the server did not confirm that the writes survive a fail-over.
        """
        barrier = self._barrier if durable else ()
        replies = []
        for start in range(0, len(calls), _MAX_CALLS_PER_ROUND_TRIP):
            batch = calls[start : start + _MAX_CALLS_PER_ROUND_TRIP]
            replies += self._raise_first_error(self._round_trip(batch, barrier))
        return replies

    def run_batched(self, *call: Any, durable: bool = False) -> Any:
        """Return the reply to one call, which shares its round trip with the concurrent calls of other threads.

        A call that must wait for a barrier goes alone, so that it waits for no other call's write.
        """
        if durable and self._barrier:
            return self.run_many([call], durable=True)[0]
        # Encoded here, so that a value that cannot be encoded fails its own call only.
        sendable = [value.encode() if isinstance(value, str) else value for value in call[1:]]
        return self._raise_first_error([self._batcher.run((call[0], *sendable))])[0]

    def _send_batch(self, calls: Sequence[Call]) -> list[Any]:
        """Send the calls sorted by operation, since one run of the script takes one operation; reply in their order."""
        order = sorted(range(len(calls)), key=lambda position: calls[position][0])
        replies = self._round_trip([calls[position] for position in order], ())
        return [reply for _, reply in sorted(zip(order, replies, strict=True), key=lambda pair: pair[0])]

    def _round_trip(self, calls: Sequence[Call], barrier: tuple[Any, ...]) -> list[Any]:
        """Return the reply to each call, or in its place the server's error."""
        runs = list(_group_into_runs(calls))
        with wrap_redis_errors(self._keys):
            run_replies = self._send(runs, barrier)
            if all(isinstance(reply, redis.exceptions.MovedError) for reply in run_replies[: len(runs)]):
                run_replies = self._send(runs, barrier)  # no call has run; the next connection leads to the new owner
            unknown = [place for place, reply in enumerate(run_replies) if _is_unknown_script(reply)]
            if unknown:  # a new or restarted server
                again = [runs[place] for place in unknown]
                for operation in {run.operation for run in again}:
                    self._redis.script_load(render_script(self._settings, operation))
                sent_again = self._send(again, barrier)
                for place, reply in zip(unknown, sent_again, strict=False):
                    run_replies[place] = reply
                run_replies[len(runs) :] = sent_again[len(again) :]
        replies = [reply for run, own in zip(runs, run_replies, strict=False) for reply in run.split_reply(own)]
        if barrier and not any(isinstance(reply, Exception) for reply in replies):  # else that error is raised
            self._check_durable(run_replies[-1])
        return replies

    def digest(self, operation: str) -> str:
        """Return the SHA-1 digest by which the server knows the operation's script."""
        if operation not in self._digests:
            text = render_script(self._settings, operation).encode()
            self._digests[operation] = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        return self._digests[operation]

    def _send(self, runs: Sequence[_ScriptRun], barrier: tuple[Any, ...]) -> list[Any]:
        clock = "" if self._clock is None else repr(self._clock())
        commands = [
            (
                self.digest(run.operation),
                1,
                self._slot_key,
                run.operation,
                self._prefix,
                clock,
                run.arguments_per_call or "",
                "1" if barrier else "",
                *run.arguments,
            )
            for run in runs
        ]
        if len(commands) == 1 and not barrier:  # the most frequent case: a pipeline would double the client's work
            try:
                # redis-py's own `evalsha` has wrappers that take as long as sending does.
                return [self._redis.execute_command("EVALSHA", *commands[0])]
            except redis.exceptions.ResponseError as error:
                return [error]
        with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.evalsha(*command)
            if barrier:
                # On the same connection, after the calls it confirms: the server waits for this connection's writes
                # only (90_dispatch.lua). redis-py repeats a pipeline as a whole, so a barrier never runs without its
                # calls after a lost connection.
                pipe.execute_command(*barrier)
            replies: list[Any] = pipe.execute(raise_on_error=False)
            return replies

    def _raise_first_error(self, replies: list[Any]) -> list[Any]:
        """Return the replies, or raise the first error among them."""
        for reply in replies:
            if isinstance(reply, Exception):
                with wrap_redis_errors(self._keys):
                    # redis-py's own raising would quote the command, and with it the request's payload.
                    raise reply
        return replies

    def _check_durable(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            missing_right = find_missing_right(reply, "ledger", self._keys)
            if missing_right is not None:
                raise missing_right from reply
            raise WriteNotDurable(f"durability = {self._durability} is not possible on this server: {reply}")
        acknowledged = reply[0] if isinstance(reply, list) else reply
        if int(acknowledged) < 1:
            error = WriteNotDurable(
                f"durability = {self._durability}: the server did not confirm the write in time; "
                "nothing was launched for it, and it is tried again when the lease is over; `ecs-queue doctor` says why"
            )
            if self._durability == "replica":  # its replicas may have left it for a new primary
                suspect_primary(self._redis, error)
            raise error


def _is_unknown_script(reply: Any) -> bool:
    return isinstance(reply, redis.exceptions.NoScriptError)


def _group_into_runs(calls: Sequence[Call]) -> Iterator[_ScriptRun]:
    """Group neighbouring calls of one operation with the same number of arguments."""
    for (operation, size), alike in groupby(calls, lambda call: (call[0], len(call) - 1)):
        max_calls = max(1, min(_MAX_CALLS_PER_RUN, _MAX_ARGUMENTS_PER_RUN // size)) if size else 1
        while group := list(islice(alike, max_calls)):
            yield _ScriptRun(operation, size if len(group) > 1 else 0, [value for call in group for value in call[1:]])
