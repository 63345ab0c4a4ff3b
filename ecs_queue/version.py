"""The version of this package, as it is installed."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def package_version() -> str:
    """Return the installed version of ecs-queue; "unknown" for a source tree that is not installed."""
    try:
        return metadata.version("ecs-queue")
    except metadata.PackageNotFoundError:
        return "unknown"
