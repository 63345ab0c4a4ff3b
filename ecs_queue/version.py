"""The version of this package, as it is installed."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata


@cache
def report_address() -> str:
    """Return where faults are reported, as the installed package's metadata names it; "" when it names no address."""
    try:
        known = metadata.metadata("ecs-queue")
    except metadata.PackageNotFoundError:
        return ""
    urls = dict(entry.split(", ", 1) for entry in known.get_all("Project-URL") or () if ", " in entry)
    named = [url for label, url in urls.items() if re.search(r"issue|bug|tracker", label, re.IGNORECASE)]
    return next(iter((*named, *(known.get_all("Home-page") or ()))), "")


@cache
def package_version() -> str:
    """Return the installed version of ecs-queue; "unknown" for a source tree that is not installed."""
    try:
        return metadata.version("ecs-queue")
    except metadata.PackageNotFoundError:
        return "unknown"
