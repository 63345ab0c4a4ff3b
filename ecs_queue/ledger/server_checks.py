"""What a Redis or Valkey behind broker or ledger offers, and what is wrong with that, as findings.

`read_facts` asks the server, `check_facts` decides. What the user may not look at is a note. What makes every launch
fail is a finding that prevents launches: workers and `submit` end with it when they start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import redis.exceptions

from ecs_queue.error_text import error_text
from ecs_queue.findings import Finding, Reporter
from ecs_queue.ledger.needed_rights import Right, find_denied, format_rights
from ecs_queue.ledger.redis_script import barrier_command, read_config_value, read_info
from ecs_queue.ledger.server_versions import AofBarrier, aof_barrier
from ecs_queue.server_keys import former_live_key, ledger_prefix
from ecs_queue.server_rights import RIGHTS_ADVICE
from ecs_queue.server_users import ServerUser

#: The oldest version that is tested.
_OLDEST_TESTED = (6, 2)
_MEMORY_WARNING_RATIO = 0.8
#: How long a barrier may take that has nothing to wait for. Milliseconds.
_BARRIER_PROBE_MILLISECONDS = 50
#: Maximum number of missing rights that one sentence names.
_MAX_NAMED_RIGHTS = 6
#: What the user may do without: then less is checked.
_INFO: Right = ("INFO",)
_CONFIG: Right = ("CONFIG", "GET", "appendfsync")


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a server and the rights of its user are.

    Attributes:
        info: The answer of INFO; empty when this user may not call it.
        appendfsync: The server's setting; None when it cannot be read.
        saves: Whether it makes snapshots; None when that cannot be read.
        min_replicas: Without as many replicas it refuses writes; None when that cannot be read.
        denied: The needed rights that this user lacks.
        barrier_confirms: Whether the barrier of the durability confirmed at once, with nothing to wait for; None
            without a barrier.
        barrier_error: The server's answer in place of a confirmation; "" for none.
        former_requests: Requests under the former names of keys that have not ended.
    """

    info: Mapping[str, Any] = {}
    appendfsync: str | None = None
    saves: bool | None = None
    min_replicas: int | None = None
    denied: Sequence[Right] = ()
    barrier_confirms: bool | None = None
    barrier_error: str = ""
    former_requests: int = 0


def read_facts(
    client: Any, namespace: str, durability: str, rights: Sequence[Right] = (), *, count_former: bool = False
) -> ServerFacts:
    """Ask the server. Nothing is called that it would deny, if it can be asked for rights (Redis 7.0, Valkey).

    Args:
        client: The connection pool.
        namespace: Begins the keys.
        durability: That of the ledger; "" for a server that is only a broker.
        rights: What this user needs.
        count_former: Whether to count the requests under the former names of keys.

    Raises:
        redis.exceptions.RedisError: The server cannot be reached, or the user needs rights and may not run scripts.
    """
    barrier = barrier_command(durability, _BARRIER_PROBE_MILLISECONDS)
    former: Right = ("ZCARD", former_live_key(namespace))
    asked = dict.fromkeys([*rights, _INFO, _CONFIG, former, *([barrier[:1]] if barrier else [])])
    try:
        denied = find_denied(client, list(asked), ledger_prefix(namespace))
    except redis.exceptions.NoPermissionError:
        if rights:
            raise
        denied = []  # this user cannot ask
    can_try = barrier and barrier[:1] not in denied
    confirms, barrier_error = _try_barrier(client, barrier) if can_try else (None, "")
    save, appendfsync, min_replicas = (
        None if _CONFIG in denied else read_config_value(client, name)
        for name in ("save", "appendfsync", "min-replicas-to-write")
    )
    info = {} if _INFO in denied else read_info(client)
    count_former = count_former and former not in denied and not info.get("cluster_enabled")
    return ServerFacts(
        info=info,
        appendfsync=appendfsync,
        saves=None if save is None else bool(save),
        min_replicas=None if min_replicas is None else int(min_replicas),
        denied=[right for right in denied if right in rights],
        barrier_confirms=confirms,
        barrier_error=barrier_error,
        former_requests=int(client.zcard(former[1])) if count_former else 0,
    )


def _try_barrier(client: Any, barrier: Sequence[Any]) -> tuple[bool, str]:
    """Return whether the barrier confirms a connection that has written nothing, and the server's error."""
    try:
        reply = client.execute_command(*barrier)
    except redis.exceptions.NoPermissionError:
        raise
    except redis.exceptions.ResponseError as error:
        return False, error_text(error)
    return int(reply[0] if isinstance(reply, list) else reply) >= 1, ""


def check_facts(
    reporter: Reporter, facts: ServerFacts, durability: str, user: ServerUser = ServerUser.WORKER
) -> Iterator[Finding]:
    """Yield the findings about one server.

    Args:
        reporter: For "ledger" or "broker".
        facts: What the server is.
        durability: That of the ledger; "" for a server that is only a broker.
        user: Whose rights were asked for.
    """
    yield from _rights(reporter, facts, user)
    yield from _version(reporter, facts.info)
    yield from _eviction(reporter, facts.info)
    yield from _memory(reporter, facts.info)
    if durability:
        yield from _durability(reporter, facts, durability)
    if facts.former_requests:
        text = f"{facts.former_requests} requests that have not ended are under the former keys, which have no braces"
        advice = "keep workers and clients of the version before until they have ended; this version does not see them"
        yield reporter.warning("server.former_keys", text, advice)
    if facts.info.get("role") == "slave":
        text = "this server is a replica, nothing can be written to it"
        yield reporter.unusable("server.role", text, "use the primary's address, or the service's primary endpoint")


def _rights(reporter: Reporter, facts: ServerFacts, user: ServerUser) -> Iterator[Finding]:
    if facts.denied:
        shown, more = facts.denied[:_MAX_NAMED_RIGHTS], len(facts.denied) - _MAX_NAMED_RIGHTS
        rest = f" and {more} more" if more > 0 else ""
        needs = f"what a {user} needs: {format_rights(shown)}{rest}"
        text = f"the {reporter.subject}'s server denies its user {needs}"
        yield reporter.unusable("server.rights", text, RIGHTS_ADVICE)


def _version(reporter: Reporter, info: Mapping[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", ""))
    if not version:
        text = "INFO is not allowed to this user: version, eviction, memory and persistence are not known"
        yield reporter.info("server.version", text, "allow INFO (+info) to check them")
        return
    major, minor, *_ = (*version.split("."), "0")
    if (int(major), int(minor)) < _OLDEST_TESTED:
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
    digits = 0 if most >= 10 * 2**20 else 2
    text = f"{used / 2**20:.{digits}f} of {most / 2**20:.{digits}f} MiB in use"
    if used < _MEMORY_WARNING_RATIO * most:
        yield reporter.ok("server.memory", text)
    else:
        advice = "give the server more memory, or lower retention_seconds: a full server takes no more requests"
        yield reporter.warning("server.memory", text, advice)


def _durability(reporter: Reporter, facts: ServerFacts, durability: str) -> Iterator[Finding]:
    """Check what the server keeps, and whether the durability is possible with it."""
    barrier_finding = _barrier(reporter, facts, durability)
    if barrier_finding is not None:
        yield barrier_finding
        return
    if durability == "replica" and facts.min_replicas == 0:
        text = "min-replicas-to-write is 0: a primary that was replaced takes requests for seconds, and they are lost"
        yield reporter.warning("server.min_replicas", text, "set min-replicas-to-write 1 and min-replicas-max-lag 2")
    if durability == "aof":
        yield _aof(reporter, facts)
    elif facts.info:
        yield _persistence(reporter, facts, durability)


def _barrier(reporter: Reporter, facts: ServerFacts, durability: str) -> Finding | None:
    """Return why the durability is not possible: each launch would wait for it, and none would be made."""
    if facts.barrier_confirms is not False:
        return None
    version = facts.info.get("valkey_version") or facts.info.get("redis_version")
    if durability == "replica":
        text = "durability = replica needs a replica, and none is connected to the server: nothing would be launched"
        advice = "connect a replica, or choose another durability"
    elif "unknown command" in facts.barrier_error:
        named = f"version {version}" if version else "this server"
        text = f"durability = aof needs WAITAOF, which {named} does not have: nothing would be launched"
        advice = "use Redis 7.2 or later, or Valkey, or choose another durability"
    elif facts.barrier_error:
        text = f"durability = aof needs an append-only file: nothing would be launched ({facts.barrier_error})"
        advice = "set appendonly yes on the server, or choose another durability: docs/production.md, Stores"
    else:
        return None  # another connection's writes are not on disk yet
    return reporter.unusable("server.persistence", text, advice)


def _aof(reporter: Reporter, facts: ServerFacts) -> Finding:
    """Check whether WAITAOF means here what `durability = aof` promises."""
    if not facts.info:
        text = "INFO is not allowed to this user, so whether durability = aof holds on this server was not checked"
        return reporter.info("server.persistence", text, "allow INFO (+info), or see docs/production.md")
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        return _failed_write(reporter)
    policy = facts.appendfsync
    version = facts.info.get("valkey_version") or facts.info.get("redis_version")
    advice = "set appendfsync always on the server; then durability = server is enough"
    is_durable = aof_barrier(facts.info) is AofBarrier.DURABLE
    if not is_durable and policy is None:
        text = (
            "CONFIG GET appendfsync is not allowed to this user, so durability = aof was not checked: this server "
            "needs appendfsync always for it"
        )
        return reporter.info("server.persistence", text, advice)
    if not is_durable and policy != "always":
        text = (
            f"durability = aof needs appendfsync always on this server (version {version}): with appendfsync {policy} "
            "it confirms writes before they are on disk"
        )
        return reporter.error("server.persistence", text, advice)
    if policy == "no":
        text = "durability = aof needs appendfsync always or everysec: with no, nothing is synced in time"
        return reporter.error("server.persistence", text, advice)
    return reporter.ok("server.persistence", f"append-only file, appendfsync {policy or 'unknown'}")


def _persistence(reporter: Reporter, facts: ServerFacts, durability: str) -> Finding:
    """Check what a server keeps that is not asked to confirm that its own disk has a write."""
    policy = facts.appendfsync
    if not facts.info.get("aof_enabled"):
        kept = "RDB snapshots only" if facts.saves else "nothing on disk"
        text = f"the server keeps {kept}: a crash loses requests that were accepted"
        if durability == "replica":
            text = f"the server keeps {kept}: restarted before its replica takes over, it empties the replica, too"
            advice = "set appendonly yes; ignore this on a service that replaces a failed node, such as ElastiCache"
            return reporter.warning("server.persistence", text, advice)
        advice = "set appendonly yes and appendfsync always, or durability = replica; ignore this on a durable service"
        return reporter.warning("server.persistence", text, advice)
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        return _failed_write(reporter)
    if policy == "always" or durability == "replica":
        return reporter.ok("server.persistence", f"append-only file, appendfsync {policy or 'unknown'}")
    if policy:
        text = f"appendfsync {policy} and durability = server: a crash loses up to a second, also of claims"
        is_aof_durable = aof_barrier(facts.info) is AofBarrier.DURABLE
        advice = f"set appendfsync always, or durability = replica{' or aof' if is_aof_durable else ''}"
        return reporter.warning("server.persistence", text, advice)
    return reporter.info("server.persistence", "append-only file; CONFIG GET appendfsync is not allowed to this user")


def _failed_write(reporter: Reporter) -> Finding:
    return reporter.error("server.persistence", "the last write of the append-only file failed", "check its disk")
