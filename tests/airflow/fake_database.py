"""Stands for Airflow's database in the crash tests of schedulers. Needs no Airflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Commit = dict[str, Any]


def is_callback(name: str) -> bool:
    """Return whether the name is a callback's, not a task's."""
    return name.startswith("callback")


class FakeDatabase:
    """A file; each line is a commit about one task or callback: its id, state and request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def commit(self, name: str, **fields: Any) -> None:
        """Append a commit."""
        with self._path.open("a") as file:
            file.write(json.dumps({"name": name, **fields}) + "\n")

    def list_commits(self) -> list[Commit]:
        """Return every commit in order."""
        text = self._path.read_text() if self._path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def read_rows(self) -> dict[str, Commit]:
        """Return the current row of each name."""
        rows: dict[str, Commit] = {}
        for line in self.list_commits():
            rows.setdefault(line["name"], {}).update(line)
        return rows
