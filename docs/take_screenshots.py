"""Takes docs/screenshots/*.png of the pages of `ecs-queue web`, light and dark: make screenshots. Needs Chromium."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from ecs_queue.broker import open_broker
from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.client.client import EcsQueue
from ecs_queue.ledger.entries import DeadLetter, dead_letter_key
from ecs_queue.local.stack import LocalStack, StackOptions
from ecs_queue.protocol.states import State
from ecs_queue.web.access import COOKIE, Access
from ecs_queue.web.app import WebApp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FOLDER = Path(__file__).parent / "screenshots"
FAILED = "orders-2026-07-03"
PAGES = {
    "overview": "/",
    "tasks": "/tasks",
    "request": f"/tasks/{FAILED}",
    "dead-letters": "/dead",
    "journal": "/journal",
    "login": "/login",
}
#: Blink's numbers of the setting preferredColorScheme.
SCHEMES = {"dark": 0, "light": 1}
_SECONDS = 60.0
#: The pages have few; so a picture takes a third of the bytes.
_COLORS = 128


def main() -> None:
    """Fill a local stack, and take each page in each scheme. Exit status 1 without Chromium."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--width", type=int, default=1280, help="at least 500, the narrowest that Chromium makes")
    parser.add_argument("--height", type=int, default=960)
    parser.add_argument("--logged-out", action="store_true", help="as a browser that is not logged in sees them")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.exit(f"make screenshots needs one of {', '.join(PROGRAMS)}: install Debian's package chromium")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with LocalStack(
        StackOptions(
            workers=2, worker_args=("--queues", "default,etl,reports"), config_values={"acting_user": "scheduler"}
        )
    ) as stack:
        os.environ.update(stack.environ)  # boto3 reads the process's own environment
        with EcsQueue.from_config(environ=stack.environ) as client:
            _fill(client)
            with _serve(client, logged_in=not arguments.logged_out) as address:
                for name, path in PAGES.items():
                    for scheme in SCHEMES:
                        target = arguments.folder / f"{name}-{scheme}.png"
                        _take(program, f"{address}{path}", target, scheme, arguments.width, arguments.height)


def _fill(client: EcsQueue) -> None:
    """Submit requests that succeed, one that fails, and some that wait in a paused queue; wait for their ends."""
    job = "echo 'reading 1,200 orders'; sleep 0.{}; echo 'wrote 1,200 rows'"
    tasks: list[dict[str, Any]] = [
        {"command": ["sh", "-c", job.format(day)], "id": f"orders-2026-07-{day:02}", "queue": "etl"}
        for day in range(1, 10)
        if f"orders-2026-07-{day:02}" != FAILED
    ]
    script = "echo 'reading 1,200 orders'; echo 'orders.csv: row 812 has no price'; exit 3"
    tasks.append({"command": ["sh", "-c", script], "id": FAILED, "queue": "etl"})
    tasks += [{"command": ["make-report", str(n)], "id": f"report-{n}", "queue": "reports"} for n in range(1, 7)]
    client.ledger.pause_queues(["reports"])
    batch = client.submit_many(tasks)
    ended = [handle for handle in batch if not handle.id.startswith("report-")]
    for handle in ended:
        handle.result(timeout=_SECONDS)
    letter = DeadLetter(
        key=dead_letter_key("etl", secrets.token_hex(8)), queue="etl", reason="the message is not JSON", body=b"{"
    )
    client.ledger.add_dead_letter(letter)
    assert client.ledger.get([FAILED])[0].state is State.FAILED


@contextmanager
def _serve(client: EcsQueue, logged_in: bool) -> Iterator[str]:
    """Yield the address of the pages, with each request logged in or none."""
    access = Access(token=secrets.token_hex(16), allow_changes=True)
    broker = open_broker(client.config)
    pages = WebApp(client, broker, access, make_presentation(), make_commands()).build()
    cookie = (b"cookie", f"{COOKIE}={access.session}".encode())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if logged_in and "headers" in scope:
            scope = {**scope, "headers": [*scope["headers"], cookie]}
        await pages(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def _take(program: str, address: str, target: Path, scheme: str, width: int, height: int) -> None:
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--screenshot={target.resolve()}"]
    options += [f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *options, f"--user-data-dir={profile}", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)  # noqa: S603
    if done.returncode or not target.exists():
        sys.exit(f"{program} took no picture of {address}: {done.stderr}")
    with Image.open(target) as picture:
        picture.convert("RGB").quantize(_COLORS, Image.Quantize.MAXCOVERAGE).save(target, optimize=True)


if __name__ == "__main__":
    main()
