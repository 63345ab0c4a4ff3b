"""One connection to Redis or Valkey: the `Connection` of `ecs_queue.runs.redis_runner`, with hiredis and a socket.

A client library would connect again by itself, in the middle of a call. That must not be: a barrier is about the writes
of its own connection only. It would also take longer to import than all the rest of a runner.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.runner.alarm import Alarm, wait_until_readable
from ecs_queue.runs.redis_runner import ServerError
from ecs_queue.server_url import ServerKind, ServerUrl

_CHUNK_BYTES = 65536
_CLIENT_NAME = "ecs-queue-runner"
#: What a server answers that does not take the writes now: another one is to be looked for.
_NOT_THE_PRIMARY = ("READONLY", "MOVED", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "UNBLOCKED", "NOREPLICAS")
#: How long a Sentinel may take when another one has answered already. Seconds.
_SECONDS_FOR_OTHERS = 0.5


class Interrupted(LedgerUnavailable):
    """The wait for the server's answer was interrupted, and the connection is closed."""


class ServerConnection:
    """See `ecs_queue.runs.redis_runner.Connection`. Used by one thread at a time."""

    def __init__(self, url: ServerUrl) -> None:
        """Remember the address; the first call connects."""
        self._url = url
        self._next_seed = 0
        self._node: tuple[str, int] | None = None
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader()
        self._would_block = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._alarm: Alarm | None = None

    @contextmanager
    def interruptible(self, alarm: Alarm) -> Iterator[None]:
        """Calls in this block raise `Interrupted` when the alarm is set."""
        self._alarm = alarm
        try:
            yield
        finally:
            self._alarm = None

    def call(self, commands: Sequence[Sequence[Any]], timeout: float) -> list[Any]:
        """See `Connection`."""
        deadline = time.monotonic() + timeout
        try:
            if self._socket is None:
                self._connect(deadline)
            replies = self._exchange(commands, deadline)
            if self._leave_replica(replies):  # by MOVED, which says that nothing was done
                self._connect(deadline)
                replies = self._exchange(commands, deadline)
                self._leave_replica(replies)
        except (OSError, hiredis.HiredisError) as error:
            self.close()
            cause = type(error).__name__
            raise LedgerUnavailable(
                f"the server cannot be reached ({cause}); check the security groups and ECS_QUEUE_RUNNER_URL"
            ) from None
        except BaseException:
            self.close()
            raise
        return replies

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def _leave_replica(self, replies: Sequence[Any]) -> bool:
        """Close the connection if this server does not take the writes, and the next one looks for the primary.

        Return whether a node of a cluster has named the one that has the keys.
        """
        for reply in replies:
            code, *words = str(reply).split(" ") if isinstance(reply, ServerError) else ("",)
            if code == "MOVED":  # slot, HOST:PORT
                host, _, port = words[-1].rpartition(":")
                self._node = (host or self._seed()[0], int(port))
            if code in _NOT_THE_PRIMARY:
                self.close()
                return code == "MOVED"
        return False

    def _seed(self) -> tuple[str, int]:
        return self._url.addresses[self._next_seed % len(self._url.addresses)]

    def _connect(self, deadline: float) -> None:
        url = self._url
        if url.kind is ServerKind.SOCKET:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_remaining(deadline))
            connection.connect(url.path)
            self._socket = connection
        else:
            node, self._node = self._node, None
            if node is None and url.kind is ServerKind.SENTINEL:
                node = self._find_primary(deadline)
            try:
                self._open(node or self._seed(), deadline)
            except OSError:
                self._next_seed += 1
                raise
        database = url.options.get("db")
        self._introduce(url.options, [("SELECT", database)] if database else [], deadline)

    def _find_primary(self, deadline: float) -> tuple[str, int]:
        """Return the primary that most Sentinels name; of equal numbers the first, which is another one each time.

        One alone may name a former primary for ever, and the runs there are others.
        """
        first, count = self._next_seed, len(self._url.addresses)
        votes = Counter[tuple[str, int]]()
        failure: Exception | None = None
        patience = _remaining(deadline) / 2
        for self._next_seed in range(first, first + count):
            try:
                found = self._ask_sentinel(min(deadline, time.monotonic() + patience))
            except (OSError, hiredis.HiredisError, LedgerUnavailable) as error:
                failure = error
                continue
            finally:
                self.close()
            votes[found] += 1
            patience = min(patience, _SECONDS_FOR_OTHERS)
            if 2 * votes[found] > count:
                break
        self._next_seed = first + 1
        if failure and not votes:
            raise failure
        return max(votes, key=lambda found: votes[found])

    def _ask_sentinel(self, deadline: float) -> tuple[str, int]:
        sentinel = self._seed()
        self._open(sentinel, deadline)
        asked = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service)
        found = self._introduce(self._url.sentinel_login, [asked], deadline)[-1]
        if not isinstance(found, list):
            raise LedgerUnavailable(f"the Sentinel {sentinel[0]}:{sentinel[1]} knows no primary; the next one is asked")
        return found[0].decode(), int(found[1])

    def _open(self, node: tuple[str, int], deadline: float) -> None:
        connection = socket.create_connection(node, _remaining(deadline))
        self._socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._url.is_encrypted:
            self._socket = _tls_context(self._url.options).wrap_socket(connection, server_hostname=node[0])

    def _introduce(self, login: Mapping[str, str], commands: Sequence[Sequence[Any]], deadline: float) -> list[Any]:
        """Log in on a new connection, and return the replies to the commands; an error of one is an outage."""
        self._reader = hiredis.Reader(replyError=ServerError)
        user = [login[name] for name in ("username", "password") if login.get(name)]
        first = [("AUTH", *user)] if login.get("password") else []
        alarm, self._alarm = self._alarm, None
        try:
            replies = self._exchange([*first, ("CLIENT", "SETNAME", _CLIENT_NAME), *commands], deadline)
        finally:
            self._alarm = alarm
        refused = [
            reply for reply in (*replies[: len(first)], *replies[len(first) + 1 :]) if isinstance(reply, ServerError)
        ]
        if refused:
            raise LedgerUnavailable(f"the server refused the runner: {refused[0]}; check ECS_QUEUE_RUNNER_URL")
        return replies

    def _exchange(self, commands: Sequence[Sequence[Any]], deadline: float) -> list[Any]:
        connection = self._socket
        assert connection is not None
        connection.settimeout(_remaining(deadline))
        connection.sendall(b"".join(hiredis.pack_command(tuple(command)) for command in commands))
        connection.setblocking(False)
        return [self._read_reply(connection, deadline) for _ in commands]

    def _read_reply(self, connection: socket.socket, deadline: float) -> Any:
        while (reply := self._reader.gets()) is False:
            try:
                chunk = connection.recv(_CHUNK_BYTES)
            except self._would_block:
                self._wait_until_readable(connection, deadline)
                continue
            if not chunk:
                raise ConnectionResetError
            self._reader.feed(chunk)
        return reply

    def _wait_until_readable(self, connection: socket.socket, deadline: float) -> None:
        alarm = [] if self._alarm is None else [self._alarm.fileno()]
        readable = wait_until_readable([connection.fileno(), *alarm], _remaining(deadline))
        if not readable:
            raise TimeoutError
        if connection.fileno() not in readable:
            raise Interrupted


def _tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Return the context for the `ssl_...` options of a URL, which mean what they mean for redis-py."""
    context = ssl.create_default_context(
        cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"), cadata=options.get("ssl_ca_data")
    )
    requirement = options.get("ssl_cert_reqs", "required")
    context.check_hostname = requirement != "none" and options.get("ssl_check_hostname", True)
    context.verify_mode = ssl.VerifyMode[f"CERT_{requirement.upper()}"]
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    if "ssl_min_version" in options:
        context.minimum_version = options["ssl_min_version"]
    if "ssl_ciphers" in options:
        context.set_ciphers(options["ssl_ciphers"])
    return context


def _remaining(deadline: float) -> float:
    """Seconds until the deadline, and a little when it has passed: 0 would mean a socket that does not wait."""
    return max(0.001, deadline - time.monotonic())
