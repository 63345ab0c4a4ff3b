"""The URL of a Redis or Valkey in every form that is understood, read without a connection.

    redis://USER:PASSWORD@HOST:6379/0          rediss:// with TLS; valkey:// and valkeys:// are the same
    unix:///run/valkey.sock?db=0               Celery's redis+socket:///run/valkey.sock?virtual_host=0
    sentinel://H1:26379,H2:26379/0?service=S   Celery's sentinel://H1:26379;sentinel://H2:26379/0?master_name=S
    redis+cluster://H1:6379,H2:6379            rediss+cluster:// with TLS

No error shows a part of the URL that may belong to a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import unquote

from ecs_queue.errors import ConfigError
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.server_url.options import parse_options, shorten_limits

_DEFAULT_PORT, _SENTINEL_PORT, _MAX_PORT = 6379, 26379, 65535
_LOGIN = ("username", "password")
#: A server ends a blocking command whose time is over when it wakes up, with its default `hz` every 100 ms if nothing
#: else happens (Redis 7.0, Valkey 9.1).
SERVER_TICK_SECONDS = 0.1
#: How late the answer to such a command may be, with what a busy machine adds.
_LATE_ANSWER_SECONDS = 3 * SERVER_TICK_SECONDS
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?\]")
#: Between the parts of Celery's form.
_NEXT_URL = re.compile(r";[a-z+]+://", re.IGNORECASE)
_ENCODING = (
    "a user or a password with / ? # @ , ; or a space must have them percent-encoded: %2F %3F %23 %40 %2C %3B %20"
)


class ServerKind(Enum):
    """How the server is found that takes the writes."""

    SINGLE = "single"
    """It is at one address; behind that address may turn out to be a cluster."""
    SOCKET = "socket"
    """A socket of this machine."""
    SENTINEL = "sentinel"
    """Sentinels know it."""
    CLUSTER = "cluster"
    """The nodes of a cluster know it."""


#: Scheme -> how the server is found, and whether TLS is used.
_SCHEMES: Mapping[str, tuple[ServerKind, bool]] = {
    "redis": (ServerKind.SINGLE, False),
    "rediss": (ServerKind.SINGLE, True),
    "valkey": (ServerKind.SINGLE, False),
    "valkeys": (ServerKind.SINGLE, True),
    "unix": (ServerKind.SOCKET, False),
    "redis+socket": (ServerKind.SOCKET, False),
    "valkey+socket": (ServerKind.SOCKET, False),
    "sentinel": (ServerKind.SENTINEL, False),
    "sentinels": (ServerKind.SENTINEL, True),
    "redis+sentinel": (ServerKind.SENTINEL, False),
    "rediss+sentinel": (ServerKind.SENTINEL, True),
    "valkey+sentinel": (ServerKind.SENTINEL, False),
    "valkeys+sentinel": (ServerKind.SENTINEL, True),
    "redis+cluster": (ServerKind.CLUSTER, False),
    "rediss+cluster": (ServerKind.CLUSTER, True),
    "valkey+cluster": (ServerKind.CLUSTER, False),
    "valkeys+cluster": (ServerKind.CLUSTER, True),
}
SERVER_SCHEMES = tuple(_SCHEMES)


@dataclass(frozen=True, slots=True, repr=False)
class ServerUrl(PayloadRepr):
    """What a URL says.

    Attributes:
        kind: How the server is found.
        is_encrypted: Whether TLS is used.
        addresses: (host, port) of the server, of the Sentinels, or of some nodes of the cluster; none of a socket.
        path: That of the socket; "" for none.
        service: The name that the Sentinels have for the server; "" for none.
        options: Arguments of redis-py's connections, with the login and the number of the database.
        sentinel_login: `username` and `password` for the Sentinels themselves.
    """

    kind: ServerKind
    is_encrypted: bool
    addresses: Sequence[tuple[str, int]] = ()
    path: str = ""
    service: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)


def is_server_url(url: str) -> bool:
    """Return whether the scheme is one of a Redis or Valkey."""
    return _split_scheme(url)[0] in _SCHEMES


def parse_server_url(url: str) -> ServerUrl:
    """Return what a URL says.

    Raises:
        ConfigError: It cannot be used; why, in words that show no password.
    """
    scheme, rest = _split_scheme(url)
    if url[:1] in ("'", '"'):
        raise ConfigError("it begins with a quotation mark; leave the quotation marks out")
    if scheme not in _SCHEMES:
        raise ConfigError(f"the scheme is none of {', '.join(SERVER_SCHEMES)}")
    kind, is_encrypted = _SCHEMES[scheme]
    location, _, query = rest.partition("?")
    if re.search(r"[#\s]", rest) or "@" in query:
        raise ConfigError(_ENCODING)
    options = parse_options(query)
    tls = [options.pop(name) for name in ("ssl", "tls") if name in options]
    if is_encrypted and False in tls:
        raise ConfigError(f"{scheme}:// is TLS, and an option after the ? switches TLS off; leave one of them out")
    login = {name: options.pop(f"sentinel_{name}") for name in _LOGIN if f"sentinel_{name}" in options}
    service = options.pop("service", "")
    read = _read_socket if kind is ServerKind.SOCKET else _read_addresses
    found = read(kind, location)
    url_options = {**found.options, **options}
    parsed = ServerUrl(
        kind=kind,
        is_encrypted=is_encrypted or True in tls,
        addresses=found.addresses,
        path=found.path,
        service=service or found.service,
        options=url_options,
        sentinel_login=login,
    )
    _check_combination(parsed)
    return parsed


def response_timeout(url: str, default: float) -> float:
    """Return the time limit of an answer in seconds: that of the URL's `socket_timeout`, otherwise the default."""
    return float(parse_server_url(url).options.get("socket_timeout", default))


def longest_wait(url: str, default: float) -> float:
    """Return how many seconds a command may wait at the server so that its answer comes within `response_timeout`.

    0: it must not wait there at all.
    """
    timeout = response_timeout(url, default)
    return max(0.0, min(timeout / 2, timeout - _LATE_ANSWER_SECONDS))


def shorten_time_limits(url: str, seconds: float) -> str:
    """Return the URL of a Redis or Valkey with time limits of at most `seconds`; any other URL as it is."""
    location, mark, query = url.partition("?")
    return f"{location}?{shorten_limits(query, seconds)}" if mark and is_server_url(url) else url


def _split_scheme(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    return (scheme.lower(), rest) if separator else ("", url)


def _read_socket(kind: ServerKind, location: str) -> ServerUrl:
    """Read `[USER:PASSWORD@]/PATH`."""
    before, slash, path = location.partition("/")
    user_info, at, host = before.rpartition("@")
    if host or not slash or not path:
        raise ConfigError("a socket's URL has its path behind three slashes: unix:///run/valkey.sock?db=0")
    options = _read_login(user_info) if at else {}
    return ServerUrl(kind=kind, is_encrypted=False, path=unquote(f"/{path}"), options=options)


def _read_addresses(kind: ServerKind, location: str) -> ServerUrl:
    """Read `[USER:PASSWORD@]HOST:PORT[,HOST:PORT ...][/DATABASE]`; of Celery's form with `;` each part is one of these.

    A Sentinel's URL may also have the service in its path, as `/SERVICE/DATABASE`.
    """
    parts = [_read_part(kind, part) for part in _NEXT_URL.split(location)]
    options: dict[str, Any] = {}
    for part in parts:
        for name, value in part.options.items():
            if options.setdefault(name, value) != value:
                raise ConfigError("the parts between the ; have different users, passwords or databases")
    addresses = tuple(address for part in parts for address in part.addresses)
    if len(addresses) > 1 and kind is ServerKind.SINGLE:
        raise ConfigError(
            "it names several hosts: write redis+cluster://HOST,HOST for a cluster, "
            "sentinel://HOST,HOST/0?service=NAME for Sentinels, or one host"
        )
    service = next((part.service for part in parts if part.service), "")
    return ServerUrl(kind=kind, is_encrypted=False, addresses=addresses, service=service, options=options)


def _read_part(kind: ServerKind, part: str) -> ServerUrl:
    authority, _, path = part.partition("/")
    user_info, at, hosts = authority.rpartition("@")
    if "@" in path:  # a password with a slash
        raise ConfigError(_ENCODING)
    if "," in user_info and kind is not ServerKind.SINGLE:  # else a part of the hosts would be the password
        raise ConfigError(f"user and password stand once, before the first host; {_ENCODING}")
    options: dict[str, Any] = _read_login(user_info) if at else {}
    default_port = _SENTINEL_PORT if kind is ServerKind.SENTINEL else _DEFAULT_PORT
    addresses = tuple(_read_address(host, default_port) for host in hosts.split(","))
    names = [unquote(name) for name in path.split("/") if name]
    service = names.pop(0) if kind is ServerKind.SENTINEL and names and not names[0].isdigit() else ""
    if len(names) > 1 or not all(re.fullmatch(r"[0-9]{1,9}", name) for name in names):
        raise ConfigError("behind the host may be / and the number of a database, and nothing else")
    if names:
        options["db"] = int(names[0])
    return ServerUrl(kind=kind, is_encrypted=False, addresses=addresses, service=service, options=options)


def _read_login(user_info: str) -> dict[str, Any]:
    user, _, password = user_info.partition(":")
    login = zip(_LOGIN, (unquote(user), unquote(password)), strict=True)
    return {name: value for name, value in login if value}


def _read_address(text: str, default_port: int) -> tuple[str, int]:
    """Read `HOST[:PORT]`, an IPv6 address in brackets."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?", text)
    if not found or (found[1] and not _HOST.fullmatch(found[1])):
        raise ConfigError(f"the host is no name and no address (of IPv6 in brackets, [::1]); {_ENCODING}")
    if not found[1]:
        raise ConfigError("it names no host")
    port = found[2] or str(default_port)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= _MAX_PORT:
        raise ConfigError(f"the port is no number from 1 to {_MAX_PORT}; {_ENCODING}")
    return found[1].strip("[]"), int(port)


def _check_combination(url: ServerUrl) -> None:
    tls_options = sorted(name for name in url.options if name.startswith("ssl_"))
    if tls_options and url.kind is ServerKind.SOCKET:
        raise ConfigError(f"the option {tls_options[0]!r} is for TLS, which a socket does not use")
    if tls_options and not url.is_encrypted:
        raise ConfigError(f"the option {tls_options[0]!r} is for TLS: begin the URL with rediss:// instead of redis://")
    if url.kind is ServerKind.SENTINEL and not url.service:
        raise ConfigError("it has no name of a service: end it with ?service=NAME, the name that the Sentinels monitor")
    if url.kind is not ServerKind.SENTINEL and (url.service or url.sentinel_login):
        raise ConfigError("service and sentinel_password are for sentinel:// URLs")
    if url.kind is ServerKind.CLUSTER and url.options.get("db"):
        raise ConfigError("a cluster has the database 0 only: end the URL with the host, or with /0")
