"""Where the primary is: found once for all connections of a client, and anew after what shows that it has moved."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

import redis.exceptions

from ecs_queue.error_text import error_text


class Address(NamedTuple):
    """Where a server answers."""

    host: str
    port: int


class FoundAddress(NamedTuple):
    """What `Route.find` has found.

    Attributes:
        address: Where the primary is.
        version: Counts the addresses.
        search: Counts the searches; several may find one address.
    """

    address: Address
    version: int
    search: int


class Locator(Protocol):
    """Finds the primary. Not thread-safe: `Route` calls it under its lock."""

    #: Whether to look for the primary again for each connection.
    asks_for_each_connection: bool

    def find(self) -> Address:
        """Return the primary's address.

        Raises:
            redis.exceptions.RedisError: It was not found within the time limit.
        """

    def suspect(self, error: Exception | None) -> bool:
        """Note that the address found last may be no longer the primary's. Return whether to look again.

        Args:
            error: The answer that says so; None if a connection could not be made.
        """


class Route:
    """The primary's address for all connections of a client. Thread-safe.

    `version` counts the addresses: a connection that was made for an earlier one is closed before its next use. One
    that cannot be made closes no other: the server may only be full, or refuse a new password.

    Args:
        locator: Finds the primary.
        recognize: Takes the kind of server that the first connection has reached ("standalone", "cluster", "sentinel",
            "" for an unknown one); returns whether to look for another address. UnusableServer: nothing can be done
            with it. None: the kind is known.
    """

    def __init__(self, locator: Locator, recognize: Callable[[str], bool] | None = None) -> None:
        self._locator = locator
        self._recognize = recognize
        self._lock = threading.Lock()
        self._address: Address | None = None
        self._must_search = True
        self._search = 0
        self._failures = 0
        self._last_failure = ""
        self.version = 0

    def __repr__(self) -> str:
        """Show the address only."""
        return f"<Route to {self._address}>"

    def find(self) -> FoundAddress:
        """Return the primary's address. One thread looks for it; those that wait share its failure.

        Raises:
            redis.exceptions.RedisError: It was not found within the time limit.
        """
        failures = self._failures
        with self._lock:
            if self._address is None or self._must_search or self._locator.asks_for_each_connection:
                if self._failures != failures:
                    raise redis.exceptions.ConnectionError(self._last_failure)
                found = self._look()
                if self._address not in (None, found):
                    self._forget()
                self._address = found
                self._must_search = False
            return FoundAddress(self._address, self.version, self._search)

    def _look(self) -> Address:
        self._search += 1
        try:
            return self._locator.find()
        except redis.exceptions.RedisError as error:
            self._failures += 1
            self._last_failure = error_text(error)
            raise

    def report_failure(self, search: int) -> None:
        """Look for the primary again with the next connection, if there was no later search.

        Args:
            search: What found the address at which no connection could be made.
        """
        with self._lock:
            if search == self._search and self._locator.suspect(None):
                self._must_search = True

    def suspect(self, version: int, error: Exception) -> None:
        """Close every connection before its next use, and look for the primary, if `version` is still the present one.

        Args:
            version: That of the connection that failed.
            error: The server's answer.
        """
        with self._lock:
            if version == self.version and self._locator.suspect(error):
                self._forget()

    @property
    def must_recognize(self) -> bool:
        """Whether the next connection must find out the kind of server: only the first one must."""
        return self._recognize is not None

    def recognize(self, mode: str) -> None:
        """Note what kind of server the first connection has reached. If another one is the primary, look for it.

        Raises:
            UnusableServer: Nothing can be done with it.
        """
        with self._lock:
            if self._recognize is not None and self._recognize(mode):
                self._forget()
            self._recognize = None

    def _forget(self) -> None:
        self.version += 1
        self._address = None
