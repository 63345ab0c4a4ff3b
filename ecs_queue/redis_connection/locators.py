"""The ways to find the primary: a fixed address, Sentinels, and the nodes of a cluster."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import redis
import redis.exceptions
from redis.crc import key_slot

from ecs_queue.errors import UnusableServer
from ecs_queue.redis_connection.route import Address

T = TypeVar("T")
#: Takes a reply and the address of its sender.
_Reader = Callable[[Any, Address], T | None]

logger = logging.getLogger("ecs_queue")

#: Arguments of a connection that belong to the server and not to Sentinels.
_OF_THE_SERVER = ("username", "password", "db", "credential_provider")
#: What a server answers that is of another kind than the URL says, and what the user should do.
_OTHER_KINDS = {
    "unknown command": "is not a Sentinel: write the port of the Sentinels (26379 by default), or redis://",
    "cluster support disabled": "is not in cluster mode: write redis:// in place of redis+cluster://",
}
#: How long a server may take when another one has answered already. Seconds.
_SECONDS_FOR_OTHERS = 0.5
#: In place of their own words, which are those of a server about its users.
_SENTINEL_LOGIN_ADVICE = (
    "the Sentinels refuse the log-in: they have users of their own, and those before the @ are the server's; put the "
    "option sentinel_password behind the URL, and sentinel_username if they ask for one"
)
_announced: set[Address] = set()
_announced_lock = threading.Lock()


class ServerAsker:
    """Asks servers one after the other, each on a connection of its own, until one answers.

    Args:
        options: Arguments of redis-py's connections.
        is_encrypted: Whether TLS is used.
        seconds: Time limit of one `ask`, however many servers there are.
    """

    def __init__(self, options: Mapping[str, Any], *, is_encrypted: bool, seconds: float) -> None:
        self._options = dict(options)
        self._class: type[redis.Connection] = redis.SSLConnection if is_encrypted else redis.Connection
        self._seconds = seconds

    def with_login(self, login: Mapping[str, str]) -> ServerAsker:
        """Return one for Sentinels, which have users of their own and no databases."""
        options = {name: value for name, value in self._options.items() if name not in _OF_THE_SERVER}
        return ServerAsker(
            {**options, **login}, is_encrypted=self._class is not redis.Connection, seconds=self._seconds
        )

    def ask(self, servers: Sequence[Address], read: _Reader[T], unknown: str, *command: str) -> T:
        """Return what `read` makes of the first useful reply. See `ask_each`."""
        return next(self.ask_each(servers, read, unknown, *command))

    def ask_each(self, servers: Sequence[Address], read: _Reader[T], unknown: str, *command: str) -> Iterator[T]:
        """Yield what `read` makes of each useful reply. After the first one, silent servers are waited for less.

        Args:
            servers: Which to ask, in this order.
            read: Takes a reply and the address of its sender; returns None if the reply is of no use.
            unknown: What to raise if servers answered, and none usefully.
            command: What to ask.

        Raises:
            redis.exceptions.RedisError: None has given a useful reply in time; the last refusal, or else failure.
        """
        deadline = time.monotonic() + self._seconds
        patience = self._seconds / 2
        failure = redis.exceptions.RedisError("no time was left to look for the primary")
        refusal: redis.exceptions.RedisError | None = None
        has_answered = has_found = False
        for server in servers:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                found = read(self._reply(server, min(left, patience), command), server)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                failure = error
                continue
            except redis.exceptions.ResponseError as error:
                refusal = _explain(error, server)
                continue
            has_answered = True
            if found is not None:
                has_found, patience = True, min(patience, _SECONDS_FOR_OTHERS)
                yield found
        if not has_found:
            raise redis.exceptions.ConnectionError(unknown) if has_answered else refusal or failure

    def _reply(self, server: Address, seconds: float, command: Sequence[str]) -> Any:
        times = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        connection: Any = self._class(**{**self._options, **times, "host": server.host, "port": server.port})
        try:
            connection.connect()
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()


class _Candidates:
    """The servers to ask; the next time begins with another one, since what one says may be out of date."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        self._seeds = [Address(*server) for server in servers]
        self._known: list[Address] = []
        self._turn = 0

    def learn(self, servers: Sequence[Address]) -> None:
        self._known = list(servers)

    def in_turn(self, first: Address | None = None) -> list[Address]:
        servers = list(dict.fromkeys([*self._known, *self._seeds]))
        turn = self._turn % len(servers)
        self._turn += 1
        return list(dict.fromkeys([*([first] if first else []), *servers[turn:], *servers[:turn]]))


class SentinelLocator:
    """Asks Sentinels for the primary of a service. See `Locator`.

    Each connection asks one: a primary that was killed and restarts after the fail-over takes writes until the
    Sentinels make it a replica, and these are lost. If it names another primary than the present one, the majority
    decides: a Sentinel that was cut off from the others, or restarted with an old configuration, may name a former
    primary for ever, and that one may take writes.
    """

    asks_for_each_connection = True

    def __init__(self, asker: ServerAsker, sentinels: Sequence[tuple[str, int]], service: str) -> None:
        self._asker = asker
        self._sentinels = _Candidates(sentinels)
        self._service = service
        self._present: Address | None = None

    def find(self) -> Address:
        """See `Locator.find`."""
        servers = self._sentinels.in_turn()
        unknown = f"no Sentinel knows a primary of the service {self._service!r}"
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        votes = Counter[Address]()
        try:
            for found in self._asker.ask_each(servers, self._read, unknown, *command):
                votes[found] += 1
                is_as_before = found == self._present and votes.total() == 1
                if is_as_before or 2 * votes[found] > len(servers):
                    break
        except redis.exceptions.AuthenticationError as error:
            raise redis.exceptions.AuthenticationError(_SENTINEL_LOGIN_ADVICE) from error
        # Of equal numbers the present one, else the first one, which is another one each time.
        self._present = max(votes, key=lambda found: (votes[found], found == self._present))
        return self._present

    def suspect(self, error: Exception | None) -> bool:  # noqa: ARG002 - the Sentinels are asked in any case
        """See `Locator.suspect`."""
        self._present = None
        return True

    def _read(self, reply: Any, _sender: Address) -> Address | None:
        return Address(_text(reply[0]), int(reply[1])) if reply else None


class ClusterLocator:
    """Asks the nodes of a cluster for the owner of a slot. See `Locator`."""

    asks_for_each_connection = False

    def __init__(self, asker: ServerAsker, nodes: Sequence[tuple[str, int]], slot_key: str) -> None:
        self._asker = asker
        self._nodes = _Candidates(nodes)
        self._slot = key_slot(slot_key.encode())
        self._moved_to: Address | None = None

    def find(self) -> Address:
        """See `Locator.find`."""
        servers = self._nodes.in_turn(self._moved_to)
        self._moved_to = None
        unknown = "no node of the cluster serves the slot of the namespace"
        try:
            return self._asker.ask(servers, self._read, unknown, "CLUSTER", "SLOTS")
        except redis.exceptions.RedisError:
            self._nodes.learn([])  # all of them may have other addresses by now; those in the URL are names
            raise

    def suspect(self, error: Exception | None) -> bool:
        """See `Locator.suspect`. The node that MOVED names knows best who owns the slot."""
        if isinstance(error, redis.exceptions.MovedError) and error.host:  # empty: the node that says it
            self._moved_to = Address(str(error.host), int(error.port))
        return True

    def _read(self, reply: Any, sender: Address) -> Address | None:
        """Read CLUSTER SLOTS: [first, last, [host, port, ...] of the primary, the same of replicas ...] of each range.

        A node that does not know its own name has none or an empty one.
        """
        owner: Address | None = None
        nodes: list[Address] = []
        for first, last, *servers in reply:
            found = [Address(_text(server[0]) or sender.host, int(server[1])) for server in servers]
            nodes += found
            if first <= self._slot <= last:
                owner = found[0]
        if owner is not None:
            self._nodes.learn(nodes)
        return owner


class SingleLocator:
    """The address in the URL; if a node of a cluster is there, `cluster` finds the owner. See `Locator`."""

    asks_for_each_connection = False

    def __init__(self, address: tuple[str, int], cluster: ClusterLocator, database: int) -> None:
        self._address = Address(*address)
        self._cluster = cluster
        self._database = database
        self._is_cluster = False

    def find(self) -> Address:
        """See `Locator.find`."""
        return self._cluster.find() if self._is_cluster else self._address

    def suspect(self, error: Exception | None) -> bool:
        """See `Locator.suspect`. A replica keeps its connections; a new one may lead to the primary."""
        if isinstance(error, redis.exceptions.MovedError):
            self._become_cluster()
        if self._is_cluster:
            return self._cluster.suspect(error)
        return error is not None

    def recognize(self, mode: str) -> bool:
        """Return whether the server is a node of a cluster, so that another node may be the primary. See `Route`."""
        host, port = self._address
        if mode == "sentinel":
            raise UnusableServer(
                f"{host}:{port} is a Sentinel: write sentinel://{host}:{port}/0?service=NAME, with the name of the "
                "service that it monitors"
            )
        if mode == "cluster":
            if self._database:
                raise UnusableServer(
                    f"{host}:{port} is in cluster mode, which has the database 0 only: end the URL with /0"
                )
            self._become_cluster()
        return self._is_cluster

    def _become_cluster(self) -> None:
        self._is_cluster = True
        with _announced_lock:
            is_new = self._address not in _announced
            _announced.add(self._address)
        if is_new:
            logger.info("%s:%s is a node of a cluster: its other nodes are used too", *self._address)


def _explain(error: redis.exceptions.ResponseError, server: Address) -> redis.exceptions.RedisError:
    """Return a sentence in place of the reply of a server of another kind; an outage, as others may answer later."""
    found = next((advice for reply, advice in _OTHER_KINDS.items() if reply in str(error)), None)
    return redis.exceptions.ConnectionError(f"{server.host}:{server.port} {found}") if found else error


def _text(value: Any) -> str:
    """Return a host; "" for none, which some servers write as "?"."""
    text = value.decode() if isinstance(value, bytes) else str(value or "")
    return "" if text == "?" else text
