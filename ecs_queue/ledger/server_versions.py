"""What the versions of Redis and Valkey do with WAITAOF, as data, and what `durability = aof` needs of each."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

_Version = tuple[int, ...]


class AofBarrier(StrEnum):
    """What WAITAOF does with `appendfsync everysec`."""

    ABSENT = "absent"
    """The server does not have the command."""
    EARLY = "early"
    """It confirms a write before the file is on disk."""
    DURABLE = "durable"


class VersionRange(NamedTuple):
    """Versions of one server, `first` to `last`, and how this is known: run with that server, or read in its source."""

    server: str
    first: _Version
    last: _Version
    barrier: AofBarrier
    source: str


_ANY = (9999,)
#: Redis PR 12622 brought the fault into 7.4 and into Valkey 8.0; Redis PR 13793 mended it in 7.4.3 and 8.0.
VERSIONS = (
    VersionRange("redis", (0,), (7, 1, 9999), AofBarrier.ABSENT, "run with 7.0.15"),
    VersionRange("redis", (7, 2), (7, 3, 9999), AofBarrier.DURABLE, "read"),
    VersionRange("redis", (7, 4), (7, 4, 2), AofBarrier.EARLY, "read"),
    VersionRange("redis", (7, 4, 3), _ANY, AofBarrier.DURABLE, "read"),
    VersionRange("valkey", (7, 2), (7, 9999), AofBarrier.DURABLE, "read"),
    VersionRange("valkey", (8, 0), (8, 9999), AofBarrier.EARLY, "read in 8.0.0 and 8.0.1"),
    VersionRange("valkey", (9, 0), (9, 1, 2), AofBarrier.EARLY, "run with 9.0.0 and 9.1.2"),
    VersionRange("valkey", (9, 1, 3), _ANY, AofBarrier.EARLY, "not known: taken for the last one that was run"),
)


#: A finding that begins with "note: " is about what could not be checked.
INFO_NOT_ALLOWED = "note: INFO is not allowed to this user, so eviction and persistence were not checked"
_CONFIG_NOT_ALLOWED = (
    "note: CONFIG GET appendfsync is not allowed to this user, so durability = aof was not checked: this server needs "
    "appendfsync always for it"
)


def aof_barrier(info: Mapping[str, Any]) -> AofBarrier | None:
    """Return what WAITAOF does on this server; None when INFO does not say which server it is."""
    name = "valkey" if info.get("valkey_version") or info.get("server_name") == "valkey" else "redis"
    text = info.get(f"{name}_version")
    numbers = [int(part) for part in str(text or "").split(".") if part.isdigit()]
    if not numbers:
        return None
    version = tuple(numbers)
    ranges = (each for each in VERSIONS if each.server == name and each.first <= version <= each.last)
    return next((each.barrier for each in ranges), None)


def find_aof_problems(info: Mapping[str, Any], appendfsync: str | None) -> list[str]:
    """Return why `durability = aof` is not durable on this server, as sentences.

    Args:
        info: The answer of INFO.
        appendfsync: The server's setting; None when it cannot be read.
    """
    findings = []
    if not info.get("aof_enabled"):
        findings.append("durability = aof needs an append-only file: set appendonly yes on the server")
    barrier, version = aof_barrier(info), info.get("valkey_version") or info.get("redis_version")
    if barrier is AofBarrier.ABSENT:
        findings.append(
            f"durability = aof needs WAITAOF, which Redis {version} does not have: use Redis 7.2 or later, or Valkey"
        )
    elif barrier is not AofBarrier.DURABLE and appendfsync is None:
        findings.append(_CONFIG_NOT_ALLOWED)
    elif barrier is not AofBarrier.DURABLE and appendfsync != "always":
        findings.append(
            f"durability = aof needs appendfsync always on this server (version {version}): with appendfsync "
            f"{appendfsync} it confirms writes before they are on disk"
        )
    elif appendfsync == "no":
        findings.append("durability = aof needs appendfsync always or everysec: with no, nothing is synced in time")
    return findings
