"""The processor time of this process's descendants, by kind."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping

import psutil


class CpuBook:
    """Counts from its creation."""

    def __init__(self, kinds: Mapping[str, str], rest: str) -> None:
        """Begin.

        Args:
            kinds: What a command line contains -> the kind of the process and of its descendants; the first that fits.
            rest: The kind of what fits to none, and of ended children of this process.
        """
        self._kinds = kinds
        self._rest = rest
        self._start = self._read()

    def read(self) -> dict[str, float]:
        """Return the seconds of each kind since the creation."""
        return {kind: seconds - self._start.get(kind, 0.0) for kind, seconds in self._read().items()}

    def _read(self) -> dict[str, float]:
        times = os.times()
        found = defaultdict(float, {self._rest: times.children_user + times.children_system})
        for child in psutil.Process().children():
            self._add(child, self._rest, found)
        return found

    def _add(self, process: psutil.Process, inherited: str, found: dict[str, float]) -> None:
        try:
            line = " ".join(process.cmdline())
            times, children = process.cpu_times(), process.children()
        except psutil.NoSuchProcess:
            return
        kind = next((kind for text, kind in self._kinds.items() if text in line), inherited)
        found[kind] += times.user + times.system + times.children_user + times.children_system
        for child in children:
            self._add(child, kind, found)
