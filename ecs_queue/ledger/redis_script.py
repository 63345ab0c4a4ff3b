"""The connection to Redis or Valkey and the ledger's script on it: one round trip per batch, errors wrapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import groupby, islice
from typing import Any, NamedTuple

import msgspec
import redis
import redis.exceptions
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from ecs_queue.errors import ConfigError, LedgerUnavailable, WriteNotDurable
from ecs_queue.ledger.batching import Call, CallBatcher
from ecs_queue.protocol.reasons import REASON_TEMPLATES
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings, protocol_numbers
from ecs_queue.protocol.states import LIVE_STATES, TERMINAL_STATES
from ecs_queue.protocol.task_order import STATUS_RANKS

#: Bounds the memory that one round trip takes of client and server.
_MAX_CALLS_PER_ROUND_TRIP = 1000
#: Calls of one operation, and their arguments, in one run of the script: a call takes some 20 us, and the server serves
#: no other client during a run.
_MAX_CALLS_PER_RUN, _MAX_ARGUMENTS_PER_RUN = 50, 1000

_BAD_URL_MESSAGE = (
    "ledger_url is no usable Redis URL (it is not shown, it may hold a password): expected "
    "redis://USER:PASSWORD@HOST:PORT/DATABASE, with / ? # @ in the password percent-encoded"
)

_SERVER_FULL_ADVICE = (
    "Give the server more memory (maxmemory), or keep finished requests for a shorter time (retention_seconds). Tasks "
    "that were launched are followed to their end meanwhile. Submit again with the same id"
)
_READ_ONLY_ADVICE = (
    "ledger_url leads to a replica; after a fail-over it must lead to the new primary. Workers retry by themselves"
)


def render_script(settings: ProtocolSettings) -> str:
    """Return the script: the protocol's numbers, reasons and states, then lua/*.lua in the order of their names."""
    numbers = [field for field in msgspec.structs.fields(Record) if field.type in (int, float, bool)]
    folder = files("ecs_queue.ledger") / "lua"
    parts = sorted((path for path in folder.iterdir() if path.name.endswith(".lua")), key=lambda path: path.name)
    return "\n".join(
        [
            _render_table("SETTINGS", protocol_numbers(settings)),
            _render_table("REASONS", REASON_TEMPLATES),
            _render_table("RECORD_NUMBERS", {field.name: field.default + 0 for field in numbers}),
            _render_table("LIVE_STATES", dict.fromkeys(LIVE_STATES, 1)),
            _render_table("TERMINAL_STATES", dict.fromkeys(TERMINAL_STATES, 1)),
            _render_table("STATUS_RANKS", STATUS_RANKS),
            *(part.read_text() for part in parts),
        ]
    )


def _render_table(name: str, values: Mapping[str, float | str]) -> str:
    """A Lua table; what JSON writes for ASCII strings and numbers, Lua reads."""
    return f"local {name} = {{ {', '.join(f'{key} = {json.dumps(value)}' for key, value in sorted(values.items()))} }}"


def connect(url: str, *, socket_timeout: float, max_connections: int) -> redis.Redis:
    """Return a client whose waits are all bounded. It connects with the first command.

    A command is retried once, immediately: its connection may have died while it was idle.

    Raises:
        ConfigError: The URL cannot be used.
    """
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=socket_timeout,
            socket_connect_timeout=socket_timeout,
            socket_keepalive=True,
            health_check_interval=25,
            max_connections=max_connections,
            retry=Retry(ConstantBackoff(0.05), 1),
            client_name="ecs-queue",
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # an unknown option in the URL shows only here
    except (ValueError, TypeError):
        # Not `from error`: urllib's message quotes what it takes for the port, which may be a part of the password.
        raise ConfigError(_BAD_URL_MESSAGE) from None
    return client


@contextmanager
def wrap_redis_errors() -> Iterator[None]:
    """Raise what redis-py raises as LedgerUnavailable. No message contains the URL or its password."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        raise LedgerUnavailable(f"the ledger is full: {error}. {_SERVER_FULL_ADVICE}") from error
    except redis.exceptions.ReadOnlyError as error:
        raise LedgerUnavailable(f"the ledger takes no writes: {error}. {_READ_ONLY_ADVICE}") from error
    except (redis.exceptions.RedisError, OSError) as error:
        raise LedgerUnavailable(f"the ledger failed: {error}; check ledger_url and the server") from error


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
    """Runs the script for one namespace. Thread-safe.

    Args:
        client: The connection pool.
        prefix: What every key begins with.
        settings: The numbers that the script is rendered with.
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
        self._durability = durability
        milliseconds = int(barrier_seconds * 1000)
        barriers = {"aof": ("WAITAOF", 1, 0, milliseconds), "replica": ("WAIT", 1, milliseconds)}
        #: docs/protocol.md, "When the ledger loses a second".
        self._barrier: tuple[Any, ...] = barriers.get(durability, ())
        self._clock = clock
        self._batcher = CallBatcher(self._send_batch, _MAX_CALLS_PER_RUN)
        self._text = render_script(settings)
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def run_one(self, *call: Any) -> Any:
        """Return the reply to one call."""
        return self.run_many([call])[0]

    def run_many(self, calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        """Run calls, each atomic, a thousand in one round trip; return their replies in order.

        Raises:
            LedgerUnavailable: It is unknown which of the calls took effect.
            WriteNotDurable: `durable`, and the server did not confirm that the writes survive a fail-over.
        """
        barrier = self._barrier if durable else ()
        replies = []
        for start in range(0, len(calls), _MAX_CALLS_PER_ROUND_TRIP):
            replies += _raise_first_error(self._round_trip(calls[start : start + _MAX_CALLS_PER_ROUND_TRIP], barrier))
        return replies

    def run_batched(self, *call: Any, durable: bool = False) -> Any:
        """Return the reply to one call, which shares its round trip with the concurrent calls of other threads.

        A call that must wait for a barrier goes alone, so that it waits for no other call's write.
        """
        if durable and self._barrier:
            return self.run_many([call], durable=True)[0]
        # Encoded here, so that a value that cannot be encoded fails its own call only.
        sendable = tuple(value.encode() if isinstance(value, str) else value for value in call[1:])
        return _raise_first_error([self._batcher.run((call[0], *sendable))])[0]

    def _send_batch(self, calls: Sequence[Call]) -> list[Any]:
        """Send the calls sorted by operation, since one run of the script takes one operation; reply in their order."""
        order = sorted(range(len(calls)), key=lambda position: calls[position][0])
        replies = self._round_trip([calls[position] for position in order], ())
        return [reply for _, reply in sorted(zip(order, replies, strict=True), key=lambda pair: pair[0])]

    def _round_trip(self, calls: Sequence[Call], barrier: tuple[Any, ...]) -> list[Any]:
        """Return the reply to each call, or in its place the server's error."""
        runs = list(_group_into_runs(calls))
        with wrap_redis_errors():
            run_replies = self._send(runs, barrier)
            if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in run_replies):
                # A new or restarted server. No call has run: all of them are this one script.
                self._redis.script_load(self._text)
                run_replies = self._send(runs, barrier)
        replies = [reply for run, own in zip(runs, run_replies, strict=False) for reply in run.split_reply(own)]
        if any(isinstance(reply, redis.exceptions.ReadOnlyError) for reply in replies):
            # The server became a replica and keeps its connections; a new one may lead to the primary.
            self._redis.connection_pool.disconnect(inuse_connections=False)
        if barrier and not any(isinstance(reply, Exception) for reply in replies):  # else that error is raised
            self._check_durable(run_replies[-1])
        return replies

    def _send(self, runs: Sequence[_ScriptRun], barrier: tuple[Any, ...]) -> list[Any]:
        clock = "" if self._clock is None else repr(self._clock())
        commands = [
            (
                self._sha,
                0,
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

    def _check_durable(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise WriteNotDurable(f"durability = {self._durability} is not possible on this server: {reply}")
        acknowledged = reply[0] if isinstance(reply, list) else reply
        if int(acknowledged) < 1:
            raise WriteNotDurable(
                f"durability = {self._durability}: the server did not confirm the write in time; "
                "nothing was launched for it, and it is tried again when the lease is over"
            )


def _raise_first_error(replies: list[Any]) -> list[Any]:
    """Return the replies, or raise the first error among them."""
    with wrap_redis_errors():
        for reply in replies:
            if isinstance(reply, Exception):
                # redis-py's own raising would quote the command, and with it the request's payload.
                raise reply
    return replies


def _group_into_runs(calls: Sequence[Call]) -> Iterator[_ScriptRun]:
    """Group neighbouring calls of one operation with the same number of arguments."""
    for (operation, size), alike in groupby(calls, lambda call: (call[0], len(call) - 1)):
        max_calls = max(1, min(_MAX_CALLS_PER_RUN, _MAX_ARGUMENTS_PER_RUN // size)) if size else 1
        while group := list(islice(alike, max_calls)):
            yield _ScriptRun(operation, size if len(group) > 1 else 0, [value for call in group for value in call[1:]])
