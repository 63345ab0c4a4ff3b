"""The connection to Redis or Valkey and the ledger's script on it: one round trip a batch, errors wrapped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import groupby, islice
from typing import Any, NamedTuple

import redis
import redis.exceptions
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from ecs_queue.errors import ConfigError, LedgerUnavailable, WriteNotDurable
from ecs_queue.ledger.batching import Call, CallBatcher

#: Bounds what one round trip holds in the memory of client and server.
_MAX_CALLS_PER_ROUND_TRIP = 1000
#: Calls of one kind, and their arguments, that are one run of the script: a call takes some 20 us, and the server does
#: nothing else meanwhile.
_MAX_CALLS_PER_RUN, _MAX_ARGUMENTS_PER_RUN = 50, 1000

_BAD_URL_MESSAGE = (
    "ledger_url is no usable Redis URL (it is not shown, it may hold a password): expected "
    "redis://USER:PASSWORD@HOST:PORT/DATABASE, with / ? # @ in the password percent-encoded"
)

_SERVER_FULL_ADVICE = (
    "Give the server more memory (maxmemory), or let finished requests go sooner (retention_seconds); meanwhile what "
    "was launched is followed to its end. Submit again with the same id"
)
_READ_ONLY_ADVICE = (
    "ledger_url leads to a replica: after a fail-over it must lead to the new primary. It is tried again by itself"
)


def read_script() -> str:
    """The whole script: lua/*.lua in the order of their names."""
    folder = files("ecs_queue.ledger") / "lua"
    parts = sorted((p for p in folder.iterdir() if p.name.endswith(".lua")), key=lambda p: p.name)
    return "\n".join(part.read_text() for part in parts)


def connect(url: str, *, socket_timeout: float, max_connections: int) -> redis.Redis:
    """A client whose every wait is bounded. One retry, at once: a connection may have died while it was idle.

    ConfigError when the URL cannot be used. No connection is made yet.
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
        # Not `from error`: urllib's words quote what it takes for the port, which may be a part of the password.
        raise ConfigError(_BAD_URL_MESSAGE) from None
    return client


@contextmanager
def wrap_redis_errors() -> Iterator[None]:
    """What redis-py raises, as LedgerUnavailable; the URL and its password are in no message."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        raise LedgerUnavailable(f"the ledger is full: {error}. {_SERVER_FULL_ADVICE}") from error
    except redis.exceptions.ReadOnlyError as error:
        raise LedgerUnavailable(f"the ledger takes no writes: {error}. {_READ_ONLY_ADVICE}") from error
    except (redis.exceptions.RedisError, OSError) as error:
        raise LedgerUnavailable(f"the ledger failed: {error}; check ledger_url and the server") from error


class _ScriptRun(NamedTuple):
    """One run of the script. `each`: how many of the arguments are one call's; 0: all of them."""

    operation: str
    arguments_per_call: int
    arguments: Sequence[Any]

    def split_reply(self, reply: Any) -> list[Any]:
        """Each call's own; all the same error when the run as such was refused."""
        calls = len(self.arguments) // self.arguments_per_call if self.arguments_per_call else 1
        return list(reply) if self.arguments_per_call and not isinstance(reply, Exception) else [reply] * calls


class Script:
    """Runs the script with one prefix, clock and settings. Thread-safe.

    `barrier_seconds`: how long a durable run waits for the server's confirmation; below the socket's time-out.
    """

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        settings: Sequence[str],
        durability: str,
        barrier_seconds: float,
        clock: Callable[[], float] | None,
    ) -> None:
        self._redis: Any = client  # redis-py's own types mix its sync and async answers
        self._prefix = prefix
        self._settings = tuple(settings)
        self._durability = durability
        self._barrier = _barrier_command(durability, int(barrier_seconds * 1000))
        self._clock = clock
        self._batcher = CallBatcher(self._send_batch, _MAX_CALLS_PER_RUN)
        self._text = read_script()
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def run_one(self, *call: Any) -> Any:
        """The reply to one call."""
        return self.run_many([call])[0]

    def run_many(self, calls: Sequence[Call]) -> list[Any]:
        """All of them in one round trip a thousand, each atomic; the replies, in order.

        After an error nobody knows which of them have been done.
        """
        return self._run_all(calls, ())

    def run_many_durably(self, calls: Sequence[Call]) -> list[Any]:
        """`run`, and NotDurable unless the server confirms that what the calls wrote will survive it."""
        return self._run_all(calls, self._barrier)

    def run_batched(self, *call: Any) -> Any:
        """`one`, in one round trip with what other threads call meanwhile."""
        operation, *arguments = call
        # Encoded here: what cannot be must fail its own call only.
        sendable = [value.encode() if isinstance(value, str) else value for value in arguments]
        return _raise_first_error([self._batcher.run((operation, *sendable))])[0]

    def run_batched_durably(self, *call: Any) -> Any:
        """`shared`, or where a write has to be confirmed alone: that is a wait, and nobody waits for another's too."""
        return self.run_many_durably([call])[0] if self._barrier else self.run_batched(*call)

    def _send_batch(self, calls: Sequence[Call]) -> list[Any]:
        """Calls of one operation side by side, for one run of the script takes them; the replies as they were asked."""
        order = sorted(range(len(calls)), key=lambda place: calls[place][0])
        replies = self._round_trip([calls[place] for place in order], ())
        found = dict(zip(order, replies, strict=True))
        return [found[place] for place in range(len(calls))]

    def _run_all(self, calls: Sequence[Call], barrier: tuple[Any, ...]) -> list[Any]:
        replies = []
        for start in range(0, len(calls), _MAX_CALLS_PER_ROUND_TRIP):
            replies += _raise_first_error(self._round_trip(calls[start : start + _MAX_CALLS_PER_ROUND_TRIP], barrier))
        return replies

    def _round_trip(self, calls: Sequence[Call], barrier: tuple[Any, ...]) -> list[Any]:
        """One round trip: the reply to each call, or in its place the server's error."""
        runs = list(_group_into_runs(calls))
        with wrap_redis_errors():
            replies = self._send(runs, barrier)
            if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):
                # A new or restarted server. Not one call has run: all of them are this one script.
                self._redis.script_load(self._text)
                replies = self._send(runs, barrier)
        of_runs = zip(runs, replies[: len(runs)], strict=True)
        found = [reply for run, of_run in of_runs for reply in run.split_reply(of_run)]
        if any(isinstance(reply, redis.exceptions.ReadOnlyError) for reply in found):
            # The server was made a replica and keeps its connections; a new one may lead to the primary.
            self._redis.connection_pool.disconnect(inuse_connections=False)
        if barrier and not any(isinstance(reply, Exception) for reply in found):  # else that is what is raised
            self._check_durable(replies[-1])
        return found

    def _send(self, runs: Sequence[_ScriptRun], barrier: tuple[Any, ...]) -> list[Any]:
        clock = "" if self._clock is None else repr(self._clock())
        if len(runs) == 1 and not barrier:
            return [self._send_one(clock, runs[0])]
        with self._redis.pipeline(transaction=False) as pipe:
            for run in runs:
                pipe.evalsha(self._sha, 0, *self._arguments(clock, run))
            if barrier:
                # On the same connection, behind the calls it is about: the server waits for all that was written up to
                # them, by whomever, so that a repeated call that finds its work done is not durable before the first.
                pipe.execute_command(*barrier)
            found: list[Any] = pipe.execute(raise_on_error=False)
            return found

    def _send_one(self, clock: str, run: _ScriptRun) -> Any:
        """Without a pipeline: the most frequent case, and half the work."""
        try:
            # Not by redis-py's `evalsha`, whose wrappers take as long as sending does.
            return self._redis.execute_command("EVALSHA", self._sha, 0, *self._arguments(clock, run))
        except redis.exceptions.ResponseError as error:
            return error

    def _arguments(self, clock: str, run: _ScriptRun) -> tuple[Any, ...]:
        return (run.operation, self._prefix, clock, *self._settings, run.arguments_per_call or "", *run.arguments)

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
    """The replies; the first error among them is raised."""
    with wrap_redis_errors():
        for reply in replies:
            if isinstance(reply, Exception):
                # redis-py's own raising would quote the command, and with it the request's payload.
                raise reply
    return replies


def _group_into_runs(calls: Sequence[Call]) -> Iterator[_ScriptRun]:
    """Neighbours of one kind together."""
    for (operation, each), alike in groupby(calls, lambda call: (call[0], len(call) - 1)):
        at_once = max(1, min(_MAX_CALLS_PER_RUN, _MAX_ARGUMENTS_PER_RUN // each)) if each else 1
        while some := list(islice(alike, at_once)):
            arguments = [argument for call in some for argument in call[1:]]
            yield _ScriptRun(operation, each if len(some) > 1 else 0, arguments)


def _barrier_command(durability: str, milliseconds: int) -> tuple[Any, ...]:
    """Confirms a write (docs/protocol.md, "When the ledger loses a second"), () when none is needed."""
    if durability == "aof":
        return ("WAITAOF", 1, 0, milliseconds)
    if durability == "replica":
        return ("WAIT", 1, milliseconds)
    return ()
