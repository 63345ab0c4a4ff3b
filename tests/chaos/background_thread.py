"""A context with a thread that does something again and again."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class BackgroundThread(ABC):
    """Runs a method in a thread while the context is entered; leaving it waits for the thread's end."""

    def __init__(self, name: str) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()

    @abstractmethod
    def pause_seconds(self) -> float:
        """Return how long to wait before the next round."""

    @abstractmethod
    def run_once(self) -> None:
        """Do it once, in the thread."""

    def _run(self) -> None:
        while not self._is_over.wait(self.pause_seconds()):
            self.run_once()
