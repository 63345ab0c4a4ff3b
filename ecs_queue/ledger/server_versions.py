"""What the versions of Redis and Valkey do with WAITAOF, as data."""

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
