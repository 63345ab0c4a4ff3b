"""Checks the Redis or Valkey behind broker and ledger: connection, version, clock, transport, memory, persistence."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import redis.exceptions

from ecs_queue.doctor.finding import Finding, Reporter
from ecs_queue.errors import ConfigError, LedgerUnavailable
from ecs_queue.ledger.redis_script import connect, read_config_value, read_info, wrap_redis_errors
from ecs_queue.ledger.server_versions import find_aof_problems

#: Clock differences in seconds. AWS refuses signatures that are 5 minutes off.
_SKEW_WARNING, _SKEW_ERROR = 5.0, 240.0
#: A launch makes three round trips: at this latency a worker with 20 launches a second waits for the server.
_SLOW_ROUND_TRIP_SECONDS = 0.02
_ROUND_TRIPS = 5
#: The oldest version that is tested.
_OLDEST_TESTED = (6, 2)
_MEMORY_WARNING_RATIO = 0.8


def check_server(
    role: str,
    url: str,
    durability: str,
    timeout: float,
    *,
    wall_clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Finding]:
    """Check one server.

    Args:
        role: "ledger" or "broker".
        url: Its URL.
        durability: The configured durability of the ledger; "" for the broker.
        timeout: Seconds for each call.
        wall_clock: Seconds since the epoch.
        monotonic: Seconds of a monotonic clock.
    """
    reporter = Reporter(role)
    try:
        client: Any = connect(url, socket_timeout=timeout, max_connections=1)
    except ConfigError as error:
        yield reporter.error("server.url", str(error), f"correct {role}_url")
        return
    try:
        with wrap_redis_errors():
            latency, skew = _measure_round_trips(client, wall_clock, monotonic)
        info = read_info(client)
        yield _reachable(reporter, latency, info)
        if skew is not None:
            yield _clock_skew(reporter, skew)
        yield _transport(reporter, url)
        yield from _version(reporter, info)
        yield from _eviction(reporter, info)
        yield from _memory(reporter, info)
        yield from _persistence(reporter, client, info, durability)
        yield from _writable(reporter, info)
    except LedgerUnavailable as error:
        advice = f"start the server, or correct {role}_url; look for firewalls, TLS (rediss://) and the password"
        yield reporter.error("server.reachable", str(error).replace("the ledger", f"the {role}", 1), advice)
    finally:
        client.close()


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
    parts = urlsplit(url)
    if parts.scheme in ("rediss", "unix") or is_loopback(parts.hostname or ""):
        return reporter.ok("server.transport", "TLS" if parts.scheme == "rediss" else "within this machine")
    return reporter.warning(
        "server.transport",
        f"{parts.scheme}:// to another machine: commands and environments cross the network in clear",
        "use rediss:// and a user of its own (ACL), or a private network",
    )


def is_loopback(host: str) -> bool:
    """Return whether every address of the host is a loopback address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def _version(reporter: Reporter, info: Mapping[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", ""))
    if not version:
        text = "INFO is not allowed to this user: version, eviction, memory and persistence are not known"
        yield reporter.info("server.version", text, "allow INFO (+info) to check them")
        return
    major, minor, *_ = (*version.split("."), "0")
    if info.get("cluster_enabled"):
        advice = "use a server or a service without cluster mode (kombu does not speak it)"
        yield reporter.error("server.version", "the server is in cluster mode", advice)
    elif (int(major), int(minor)) < _OLDEST_TESTED:
        text = f"Redis {version} is older than what is tested"
        yield reporter.warning("server.version", text, "use Redis 7 or newer, or Valkey")


def _eviction(reporter: Reporter, info: Mapping[str, Any]) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy")
    if policy == "noeviction":
        yield reporter.ok("server.eviction", "maxmemory-policy is noeviction")
    elif policy:
        text = f"maxmemory-policy is {policy}: under memory pressure the server drops records and messages"
        yield reporter.error(
            "server.eviction", text, "CONFIG SET maxmemory-policy noeviction, and set it in the server's configuration"
        )


def _memory(reporter: Reporter, info: Mapping[str, Any]) -> Iterator[Finding]:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        return
    text = f"{used / 2**20:.0f} of {most / 2**20:.0f} MiB in use"
    if used < _MEMORY_WARNING_RATIO * most:
        yield reporter.ok("server.memory", text)
    else:
        advice = "give the server more memory, or lower retention_seconds: a full server takes no more requests"
        yield reporter.warning("server.memory", text, advice)


def _persistence(reporter: Reporter, client: Any, info: Mapping[str, Any], durability: str) -> Iterator[Finding]:
    if not info or not durability:
        return
    if not info.get("aof_enabled"):
        kept = "RDB snapshots only" if read_config_value(client, "save") else "nothing on disk"
        text = f"the server keeps {kept}: a crash loses requests that were accepted"
        if durability == "replica":
            yield reporter.info("server.persistence", f"{text}; durability = replica waits for a replica instead")
        else:
            advice = "set appendonly yes and appendfsync always; ignore this on a durable service"
            yield reporter.warning("server.persistence", text, advice)
        return
    if info.get("aof_last_write_status", "ok") != "ok":
        yield reporter.error("server.persistence", "the last write of the append-only file failed", "check its disk")
        return
    policy = read_config_value(client, "appendfsync")
    if durability == "aof" and (problems := find_aof_problems(info, policy)):
        is_note = all(problem.startswith("note: ") for problem in problems)
        report = reporter.warning if is_note else reporter.error
        advice = "set appendfsync always on the server; then durability = server is enough"
        yield report("server.persistence", "; ".join(problems), advice)
        return
    if policy == "always" or durability in ("aof", "replica"):
        yield reporter.ok("server.persistence", f"append-only file, appendfsync {policy or 'unknown'}")
    elif policy:
        text = f"appendfsync {policy} and durability = server: a crash loses up to a second, also of claims"
        yield reporter.warning("server.persistence", text, "set appendfsync always, or durability = aof (or replica)")
    else:
        yield reporter.info(
            "server.persistence", "append-only file; CONFIG GET appendfsync is not allowed to this user"
        )


def _writable(reporter: Reporter, info: Mapping[str, Any]) -> Iterator[Finding]:
    if info.get("role") == "slave":
        text = "this server is a replica, nothing can be written to it"
        yield reporter.error("server.role", text, "use the primary's address, or the service's primary endpoint")
