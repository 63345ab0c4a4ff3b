"""The messages that every version must decode."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> bytes:
    """The bytes of one golden message."""
    return (GOLDEN / f"{name}.json").read_bytes()
