"""Checks the Redis or Valkey behind broker and ledger: its connection, clock and transport, and what it offers."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import redis.exceptions

from ecs_queue.errors import ConfigError, LedgerUnavailable, MissingRight, UnusableServer
from ecs_queue.findings import Finding, Reporter
from ecs_queue.ledger.needed_rights import needed_rights
from ecs_queue.ledger.redis_script import wrap_redis_errors
from ecs_queue.ledger.server_checks import check_facts, read_facts
from ecs_queue.redis_connection import ask_each_sentinel, connect
from ecs_queue.server_keys import ledger_prefix, namespace_prefix
from ecs_queue.server_rights import LEDGER_URL_KEY, RIGHTS_ADVICE
from ecs_queue.server_url import ServerKind, parse_server_url
from ecs_queue.server_url.iam import IamLogin
from ecs_queue.server_users import ServerUser

#: Clock differences in seconds. AWS refuses signatures that are 5 minutes off.
_SKEW_WARNING, _SKEW_ERROR = 5.0, 240.0
#: A launch makes three round trips: at this latency a worker with 20 launches a second waits for the server.
_SLOW_ROUND_TRIP_SECONDS = 0.02
_ROUND_TRIPS = 5


def check_server(
    role: str,
    url: str,
    durability: str,
    timeout: float,
    *,
    namespace: str = "",
    iam: IamLogin | None = None,
    wall_clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Finding]:
    """Check one server.

    Args:
        role: "ledger" or "broker".
        url: Its URL.
        durability: The configured durability of the ledger; "" for the broker.
        timeout: Seconds for each call.
        namespace: Begins the keys; "": a worker's rights are not checked.
        iam: Who logs in with IAM.
        wall_clock: Seconds since the epoch.
        monotonic: Seconds of a monotonic clock.
    """
    reporter = Reporter(role)
    try:
        slot_key = namespace_prefix(namespace) if namespace else ""
        client: Any = connect(
            url, socket_timeout=timeout, max_connections=1, key=f"{role}_url", slot_key=slot_key, iam=iam
        )
    except ConfigError as error:
        yield reporter.error("server.url", str(error), f"correct {role}_url")
        return
    try:
        prefix = ledger_prefix(namespace)
        rights = needed_rights(ServerUser.WORKER, prefix, durability) if namespace and durability else ()
        with wrap_redis_errors(f"{prefix}*"):
            latency, skew = _measure_round_trips(client, wall_clock, monotonic)
            facts = read_facts(client, namespace, durability, rights, count_former=bool(rights))
        yield _reachable(reporter, latency, facts.info)
        if skew is not None:
            yield _clock_skew(reporter, skew)
        yield _transport(reporter, url)
        yield from _cluster(reporter, url, facts.info)
        yield from _sentinels(reporter, ask_each_sentinel(url, timeout))
        yield from check_facts(reporter, facts, durability)
    except MissingRight as error:
        text = _name_role(error, role).removesuffix(f"; {RIGHTS_ADVICE}")
        yield reporter.unusable("server.rights", text, RIGHTS_ADVICE)
    except UnusableServer as error:
        yield reporter.unusable("server.url", str(error), f"correct {role}_url")
    except LedgerUnavailable as error:
        key = LEDGER_URL_KEY if role == "ledger" else f"{role}_url"
        advice = f"start the server, or correct {key}; look for firewalls, TLS (rediss://) and the password"
        yield reporter.error("server.reachable", _name_role(error, role), advice)
    finally:
        client.close()


def _name_role(error: Exception, role: str) -> str:
    """The sentence of an error that `wrap_redis_errors` has raised, about the server of this role."""
    text = str(error).replace("the ledger", f"the {role}", 1)
    return text if role == "ledger" else text.replace(LEDGER_URL_KEY, f"{role}_url")


def _measure_round_trips(
    client: Any, wall_clock: Callable[[], float], monotonic: Callable[[], float]
) -> tuple[float, float | None]:
    """Return the fastest round trip, and how far this machine's clock is ahead (None: TIME is not allowed); seconds."""
    best = float("inf")
    skew: float | None = None
    for _ in range(_ROUND_TRIPS):
        before, began = wall_clock(), monotonic()
        try:
            seconds, microseconds = client.time()
        except redis.exceptions.NoPermissionError:
            client.ping()
            seconds = None
        took = monotonic() - began
        if took < best:
            best = took
            skew = None if seconds is None else before + took / 2 - (seconds + microseconds / 1e6)
    return best, skew


def _reachable(reporter: Reporter, latency: float, info: Mapping[str, Any]) -> Finding:
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or "of unknown version"
    text = f"{name} {version} answers in {latency * 1000:.1f} ms"
    if latency <= _SLOW_ROUND_TRIP_SECONDS:
        return reporter.ok("server.reachable", text)
    return reporter.warning(
        "server.reachable", text, "move workers and server closer together: each launch makes several round trips"
    )


def _clock_skew(reporter: Reporter, skew: float) -> Finding:
    text = f"this machine's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the server's"
    if abs(skew) < _SKEW_WARNING:
        return reporter.ok("server.clock", text)
    advice = "synchronize both with NTP: leases follow the server's clock, AWS's signatures this machine's"
    if abs(skew) < _SKEW_ERROR:
        return reporter.warning("server.clock", text, advice)
    return reporter.error("server.clock", text, f"{advice}; AWS refuses signatures that are 5 minutes off")


def _transport(reporter: Reporter, url: str) -> Finding:
    """Check whether others could read or forge what is sent."""
    parsed = parse_server_url(url)
    if parsed.options.get("ssl_cert_reqs") == "none":
        text = "TLS without a check of the certificate: another machine may answer in the server's place"
        return reporter.warning(
            "server.transport", text, "leave out ssl_cert_reqs=none, and name the CA: ssl_ca_certs=FILE"
        )
    if parsed.is_encrypted:
        return reporter.ok("server.transport", "the connection has TLS")
    if all(is_loopback(host) for host, _ in parsed.addresses):  # of a socket there are none
        return reporter.ok("server.transport", "the connection does not leave this machine")
    return reporter.warning(
        "server.transport",
        "no TLS to another machine: commands and environments cross the network in clear",
        "use rediss:// and a user of its own (ACL), or a private network",
    )


def _cluster(reporter: Reporter, url: str, info: Mapping[str, Any]) -> Iterator[Finding]:
    """Say what a URL of one server means when a node of a cluster is there. AWS's endpoints lead to all nodes."""
    parsed = parse_server_url(url)
    is_cluster = "cluster" in (info.get("redis_mode"), info.get("server_mode"))
    if is_cluster and parsed.kind is ServerKind.SINGLE and not parsed.addresses[0][0].endswith(".amazonaws.com"):
        text = "a node of a cluster: a process that starts while this node is down does not find the others"
        yield reporter.info("server.cluster", text, "name several: redis+cluster://HOST:PORT,HOST:PORT")


def is_loopback(host: str) -> bool:
    """Return whether every address of the host is a loopback address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def _sentinels(reporter: Reporter, named: Mapping[str, str]) -> Iterator[Finding]:
    """Check whether the Sentinels agree: one with an old answer is outvoted while most of the others answer."""
    primaries = sorted({primary for primary in named.values() if primary})
    silent = [sentinel for sentinel, primary in named.items() if not primary]
    if silent:
        text = f"no primary is named by {len(silent)} of {len(named)} Sentinels: {', '.join(silent)}"
        yield reporter.warning("server.sentinels", text, "start them, or correct their addresses in the URL")
    if len(primaries) > 1:
        groups = [f"{each} ({', '.join(key for key in named if named[key] == each)})" for each in primaries]
        text = f"the Sentinels name different primaries: {', '.join(groups)}"
        advice = (
            "clients follow the majority; let the other ones forget the service and monitor it anew (SENTINEL REMOVE, "
            "SENTINEL MONITOR), and make the former primary a replica"
        )
        yield reporter.warning("server.sentinels", text, advice)
    elif named and not silent:
        yield reporter.ok("server.sentinels", f"{primaries[0]} is named by all Sentinels ({len(named)})")
