"""The application on a queue in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.testing import MemoryQueue
from ecs_queue.web.access import Access
from ecs_queue.web.app import WebApp

TOKEN = "0123456789abcdef-token"


@dataclass
class Site:
    """A browser and the queue behind the page."""

    browser: TestClient
    queue: MemoryQueue

    def log_in(self) -> None:
        assert self.browser.get(f"/login?token={TOKEN}").status_code == 200


def open_site(queue: MemoryQueue, host: str = "127.0.0.1", allow_changes: bool = False) -> Site:
    names = frozenset({"queue.example.com"})
    access = Access(token=TOKEN, host=host, allowed_hosts=names, allow_changes=allow_changes)
    app = WebApp(queue, queue._broker, access, make_presentation(), make_commands()).build()
    return Site(TestClient(app, base_url="http://127.0.0.1:8480"), queue)


@pytest.fixture
def site() -> Iterator[Site]:
    with MemoryQueue() as queue:
        yield open_site(queue)
