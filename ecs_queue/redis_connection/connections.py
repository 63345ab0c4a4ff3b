"""redis-py's connections, with the address that a `Route` has when they connect."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import redis
import redis.exceptions

from ecs_queue.error_text import error_text
from ecs_queue.errors import UnusableServer
from ecs_queue.redis_connection.route import Route

try:
    from redis.maint_notifications import MaintNotificationsConfig
except ImportError:  # before redis-py 7
    NO_MAINTENANCE_NOTIFICATIONS: dict[str, Any] = {}
else:
    #: The route decides where a connection leads, not a notification; and each new connection would ask for them.
    NO_MAINTENANCE_NOTIFICATIONS = {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}

_NOT_CONNECTED = -1
#: Answers of a server that is not, or not yet, the primary.
_NOT_PRIMARY = (
    redis.exceptions.MovedError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.BusyLoadingError,
)
#: What redis-py has no types for: how the server ends a wait for messages when it becomes a replica; and how one with
#: `min-replicas-to-write` refuses a write when its replicas have left it, perhaps for a new primary.
_NOT_PRIMARY_TEXTS = ("UNBLOCKED", "NOREPLICAS")

if TYPE_CHECKING:
    _Base = redis.Connection
else:
    _Base = object


class _Routed(_Base):
    """What `RoutedConnection` and `RoutedSSLConnection` add to redis-py's connections."""

    #: What a first connection fails with where the server has TLS and the URL does not, or the other way round.
    _other_scheme_failures: tuple[str, ...]
    _other_scheme_advice: str

    def __init__(self, *, route: Route, max_seconds: float = math.inf, **options: Any) -> None:
        self.route = route
        self.route_version = _NOT_CONNECTED
        self.max_seconds = max_seconds
        self.too_old_at = math.inf
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        """See `Connection`. A connection to where the primary was is closed first, and one that is too old."""
        if self.route_version not in (_NOT_CONNECTED, self.route.version) or time.monotonic() > self.too_old_at:
            self.disconnect()
        super().connect()  # type: ignore[no-untyped-call]

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """See `Connection`."""
        if self.route_version != _NOT_CONNECTED:
            return
        found = self.route.find()
        self.host, self.port = found.address
        try:
            super().connect_check_health(check_health, retry_socket_connect)
            self.route_version = found.version
            self.too_old_at = time.monotonic() + self.max_seconds
            if self.route.must_recognize:
                self.route.recognize(self._read_mode())
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            self.route.report_failure(found.search)
            text = error_text(error)
            if self.route.must_recognize and any(words in text for words in self._other_scheme_failures):
                raise type(error)(f"{text.removesuffix('.')}; {self._other_scheme_advice}") from error
            raise
        except redis.exceptions.ResponseError:  # a cluster refuses to select another database than 0
            if self.route.must_recognize and self.db:
                self.route.recognize(self._read_mode_without_database())
            raise
        except UnusableServer:
            self.disconnect()
            raise
        if self.route.version != found.version:
            self.disconnect()
            self.connect_check_health(check_health, retry_socket_connect)

    def _read_mode(self) -> str:
        """Return "standalone", "cluster" or "sentinel"; "" if the server does not say it."""
        if self.handshake_metadata:
            return _mode(self.handshake_metadata)
        try:  # RESP2, in which redis-py has sent no HELLO
            self.send_command("HELLO", check_health=False)  # type: ignore[no-untyped-call]
            reply = self.read_response()
        except redis.exceptions.ResponseError:
            return ""
        return _mode(dict(zip(reply[::2], reply[1::2], strict=True)) if isinstance(reply, list) else reply)

    def _read_mode_without_database(self) -> str:
        database, self.db = self.db, 0
        try:
            super().connect_check_health()
            return self._read_mode()
        finally:
            self.db = database
            self.disconnect()

    def disconnect(self, *args: Any, **options: Any) -> None:
        """See `Connection`."""
        self.route_version = _NOT_CONNECTED
        super().disconnect(*args, **options)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **options: Any) -> Any:
        """See `Connection`."""
        try:
            return super().read_response(*args, **options)
        except redis.exceptions.RedisError as error:
            if isinstance(error, _NOT_PRIMARY) or error_text(error).startswith(_NOT_PRIMARY_TEXTS):
                self.route.suspect(self.route_version, error)
            raise


def _mode(handshake: Mapping[Any, Any]) -> str:
    found = handshake.get(b"mode") or handshake.get("mode") or ""
    return found.decode() if isinstance(found, bytes) else str(found)


class RoutedConnection(_Routed, redis.Connection):
    """A connection to the server that a `Route` names."""

    _other_scheme_failures = ("Connection reset by peer", "Connection closed by server")
    _other_scheme_advice = "if the server has TLS, begin the URL with rediss://"


class RoutedSSLConnection(_Routed, redis.SSLConnection):
    """The same with TLS."""

    # A server without TLS takes the handshake for a part of a command, and waits for its end.
    _other_scheme_failures = ("Timeout connecting", "[SSL: WRONG_VERSION_NUMBER]", "[SSL: RECORD_LAYER_FAILURE]")
    _other_scheme_advice = "if the server has no TLS at this port, begin the URL with redis://"
