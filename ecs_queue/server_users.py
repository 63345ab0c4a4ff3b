"""The users of the server and their rights: the one table behind conf/redis-users.acl and the checks at a start.

A right is a command on keys. Each grant becomes a selector of its own (Redis 7.0, Valkey), so that a command is allowed
only on the keys that it needs: `LPUSH` to a request queue without `DEL`, the hash of a record without its payload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from ecs_queue.server_keys import former_live_key, namespace_prefix


class ServerUser(StrEnum):
    """A kind of process or person."""

    WORKER = "worker"
    """Launches requests, follows them and publishes their results."""
    SUBMITTER = "submitter"
    """Submits, waits for its own results, and stops."""
    READER = "reader"
    """Sees records, counts, queues and workers, and no payload."""
    OPERATOR = "operator"
    """Pauses queues, stops, reads the journal, handles dead letters and submits them again."""
    RUNNER = "runner"
    """Runs the commands of a warm pool in its container, beside user code."""
    CALL = "call"
    """Runs a function in its container, and returns its value."""


class Grant(NamedTuple):
    """Commands on keys.

    Attributes:
        access: "R", "W" or "RW": what the commands may do with the keys.
        keys: Patterns of keys without what every key begins with. `{owner}` stands for the names of the user's own
            result owners.
        commands: The commands.
    """

    access: str
    keys: str
    commands: str


#: Who submits: the user's name, and what the names of its result owners begin with (`owner_prefix`).
SUBMITTERS: Mapping[str, str] = {"submitter": "client", "airflow": "airflow"}
#: Commands without keys. A client sets up its own connection with commands that Redis 7.0 does not know by name
#: (CLIENT SETINFO): the category without what is dangerous, and without tracking, which would report the names of
#: all keys, those of other namespaces too. INFO is for checks at the start, CLUSTER SLOTS finds the owner of the slot.
_BASE = (
    "resetchannels -@all +@connection -@admin -@dangerous -client|tracking +info +time +script|load +evalsha +wait "
    "+multi +exec +cluster|slots"
)

_LOOK = (
    Grant("RW", "l:slot j:slot q:slot*", "evalsha"),
    Grant("R", "l:r:*", "hgetall"),
    Grant("R", "l:live l:finished", "zrevrange"),
    Grant("R", "l:unclaimed:* l:retry:*", "zrange"),
    Grant("R", "l:delayed:*", "zcount"),
    Grant("R", "l:starting:* l:key_holders:*", "zcard"),
    Grant("R", "l:key_waiting:*", "zcard zlexcount"),
    Grant("R", "l:dead_letter_times", "zcard"),
    Grant("R", "l:arns", "hget"),
    Grant("R", "l:counts l:paused l:event_health l:workers l:broken", "hgetall"),
    Grant("R", "l:run:*", "hmget"),
    Grant("R", "l:runners", "zrange"),
    Grant("R", "q:requests.*", "llen"),
)
_STOP_RUNS = (
    Grant("RW", "l:run:*", "hset hdel pexpire"),
    Grant("W", "l:run:* l:turn:*", "del"),  # both keys in one call
    Grant("W", "l:wake:*", "rpush ltrim pexpire"),
)
_SUBMIT = (
    Grant("W", "l:r:*", "hset hdel pexpire"),
    Grant("W", "l:r:", "set del"),
    Grant("W", "l:payload:*", "hset hdel del"),
    Grant(
        "W",
        "l:unclaimed:* l:retry:* l:delayed:* l:starting:* l:due l:expiry l:live l:finished l:undelivered:* "
        "l:key_holders:* l:key_waiting:*",
        "zadd zrem",
    ),
    Grant("R", "l:key_waiting:*", "zrangebylex"),
    Grant("R", "l:r:*", "hmget"),
    Grant("RW", "l:undelivered:*", "pttl pexpire"),
    Grant("RW", "l:counts", "hincrby"),
    Grant("RW", "l:old_workers", "get set"),
    Grant("W", "l:arns", "hset hdel"),
    Grant("W", "q:requests.*", "lpush zadd"),
    Grant("W", "q:results.*", "lpush pexpire"),
    *_STOP_RUNS,
)
_APPEND_TO_JOURNAL = (
    Grant("W", "j:s", "xadd xdel"),
    Grant("W", "j:r:*", "rpush lrem"),
    Grant("RW", "j:ids", "hset hget hdel"),
    Grant("RW", "j:sizes", "rpush lindex lpop"),
    Grant("RW", "j:bytes", "incrby set"),
    Grant("RW", "j:w:*", "get set"),
)
_OWN_RESULTS = (
    Grant("R", "l:undelivered:{owner}-*", "zrange"),
    Grant("RW", "q:results.{owner}-*", "brpop rpop llen del"),
)
_CHECK_BROKEN = (
    Grant("RW", "l:broken", "hexists hget hset hdel"),
    Grant("RW", "l:broken_checks", "zadd zrem zcard zrangebyscore"),
    Grant("RW", "l:counts", "hset hdel"),
    Grant("R", "l:counts l:paused l:event_health l:workers", "hget"),
    Grant("R", "l:payload:*", "hget"),
    Grant("R", "l:live", "zscore zrange"),
)
_WORK = (
    *_CHECK_BROKEN,
    Grant("RW", "l:* j:s j:ids j:sizes", "rename"),
    Grant("R", "j:ids", "hkeys"),
    Grant("RW", "l:clock", "hget hset"),
    Grant("R", "l:dead_letters", "hkeys hexists"),
    Grant("W", "l:dead_letter_bytes", "set"),
    Grant("RW", "l:r:*", "hget hset hdel pexpire"),
    Grant("R", "l:payload:*", "hget hgetall"),
    Grant(
        "RW", "l:unclaimed:* l:retry:* l:due l:expiry l:live l:finished", "zscore zrange zrangebyscore zrevrangebyscore"
    ),
    Grant("R", "l:starting:*", "zrange"),
    Grant("R", "l:key_holders:*", "zrangebyscore"),
    Grant("R", "l:counts", "hmget"),
    Grant("RW", "l:bucket:*", "hmget hset ttl expire"),
    Grant("RW", "l:capacity:*", "hmget hset expire"),
    Grant("R", "l:paused", "hexists"),
    Grant("RW", "l:delivery:* l:last_delivery:*", "get set incr del pexpire"),
    Grant("W", "l:dead_letters", "hsetnx hstrlen hdel"),
    Grant("RW", "l:dead_letter_times", "zadd zrem zrange zcard"),
    Grant("RW", "l:dead_letter_bytes", "get incrby decrby"),
    Grant("RW", "l:event_health l:workers", "hget hset hdel"),
    Grant("RW", "l:run:*", "persist"),
    Grant("W", "l:turn:*", "set"),
    Grant("RW", "l:idle:* l:runners", "zadd zrem zrevrange pexpire"),
    Grant("RW", "l:changed_runs", "bzpopmin zpopmin"),
    Grant("RW", "q:requests.* q:unacked*", "evalsha bzpopmin lpush rpush lpos lrange ltrim exists zadd"),
    Grant("RW", "q:unacked*", "zrem zscore zrangebyscore hset hmget hstrlen hscan hdel"),
)
_OPERATE = (
    *_CHECK_BROKEN,
    Grant("W", "l:aside:*", "del"),
    Grant("W", "l:workers l:event_health", "hdel"),
    Grant("R", "l:payload:*", "hgetall"),
    Grant("W", "l:paused", "hsetnx hdel"),
    Grant("RW", "l:dead_letters", "hget hdel hstrlen"),
    Grant("RW", "l:dead_letter_times", "zrevrangebyscore zscore zrem"),
    Grant("RW", "l:dead_letter_bytes", "decrby"),
    Grant("R", "j:*", "lrange xrange xrevrange xread xlen get"),
)
_RUN_COMMANDS = (
    Grant("RW", "l:slot", "evalsha"),
    Grant("RW", "l:run:*", "hmget hset pexpire"),
    Grant("W", "l:run:", "set del"),
    Grant("R", "l:turn:*", "get"),
    Grant("W", "l:changed_runs", "zadd"),
    Grant("RW", "l:wake:*", "blpop"),
)
#: The caller writes a call and takes its value, the container the other way round.
_SEND_CALLS = (Grant("W", "c:in:* c:out:*", "del"), Grant("W", "c:in:*", "set"), Grant("R", "c:out:*", "getrange"))
_RUN_CALLS = (Grant("R", "c:in:*", "getrange"), Grant("W", "c:out:*", "set"))
GRANTS: Mapping[ServerUser, tuple[Grant, ...]] = {
    ServerUser.WORKER: (*_LOOK, *_SUBMIT, *_WORK, *_APPEND_TO_JOURNAL),
    ServerUser.SUBMITTER: (*_LOOK, *_SUBMIT, *_OWN_RESULTS, *_APPEND_TO_JOURNAL, *_SEND_CALLS),
    ServerUser.READER: _LOOK,
    ServerUser.OPERATOR: (*_LOOK, *_SUBMIT, *_OPERATE, *_APPEND_TO_JOURNAL),
    ServerUser.RUNNER: _RUN_COMMANDS,
    ServerUser.CALL: _RUN_CALLS,
}


#: No client can log in as this user. It keeps its rights because many servers load the append-only file with them:
#: without them a restart drops what scripts and transactions wrote (redis/redis#14541, valkey-io/valkey#3983).
_DEFAULT_USER = "user default off ~* &* +@all"


def render_users(namespace: str, submitters: Mapping[str, str] = SUBMITTERS, durability: str = "server") -> str:
    """Return the users of a namespace for the server's `aclfile`, with a placeholder for each password.

    Args:
        namespace: What every key begins with.
        submitters: The submitters' names, and what the names of their result owners begin with.
        durability: That of the ledger: "aof" needs a command that Redis 7.0 does not know.
    """
    lines = [_DEFAULT_USER]
    for user in ServerUser:
        names = submitters if user is ServerUser.SUBMITTER else {user.value: ""}
        lines += [_render_user(namespace, name, user, owner, durability) for name, owner in names.items()]
    return "\n".join([*lines, ""])


def password_placeholder(name: str) -> str:
    """Return what stands in the file in place of a user's password."""
    return f"{name.upper().replace('-', '_')}_PASSWORD"


def _render_user(namespace: str, name: str, user: ServerUser, owner: str, durability: str) -> str:
    barrier = " +waitaof" if durability == "aof" and user is not ServerUser.READER else ""
    selectors = " ".join(_render_grant(namespace, grant, owner) for grant in GRANTS[user])
    former = f" (%R~{former_live_key(namespace)} +zcard)" if user is ServerUser.WORKER else ""
    return f"user {namespace}-{name} on >{password_placeholder(name)} {_BASE}{barrier} {selectors}{former}"


def _render_grant(namespace: str, grant: Grant, owner: str) -> str:
    access = "" if grant.access == "RW" else f"%{grant.access}"
    keys = [f"{access}~{namespace_prefix(namespace)}{key.format(owner=owner)}" for key in grant.keys.split()]
    return f"({' '.join(keys)} {' '.join(f'+{command}' for command in grant.commands.split())})"


def ledger_rights(user: ServerUser, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each command that a user needs on keys of the ledger, with one key; `prefix` begins every key.

    The rights on a submitter's own results are left out: another submitter has others. So is the right to run scripts,
    since a script asks for the rights.
    """
    for grant in GRANTS[user]:
        for key in grant.keys.split():
            if key.startswith("l:") and "{owner}" not in key and grant.commands != "evalsha":
                for command in grant.commands.split():
                    yield command.upper(), prefix + key.removeprefix("l:").removesuffix("*")
