"""Takes docs/screenshots/*.png of the pages of `ecs-queue web`, light and dark: make screenshots. Needs Chromium."""

from __future__ import annotations

import argparse
import math
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from ecs_queue.broker import open_broker
from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.client.client import EcsQueue
from ecs_queue.journal import open_event_encoder, open_journal
from ecs_queue.journal.last_hour import MINUTE, MINUTES
from ecs_queue.ledger.entries import DeadLetter, dead_letter_key
from ecs_queue.local.stack import LocalStack, StackOptions
from ecs_queue.protocol.states import State
from ecs_queue.web.access import Access, cookie_name
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
#: Pages that are taller than the others. Pixels.
TALL = ("overview", "request")
HEIGHT, TALL_HEIGHT = 960, 1180
#: Blink's numbers of the setting preferredColorScheme.
SCHEMES = {"dark": 0, "light": 1}
_SECONDS = 60.0
#: The pages have few; so a picture takes a third of the bytes.
_COLORS = 256


def main() -> None:
    """Fill a local stack, and take each page in each scheme. Exit status 1 without Chromium."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--width", type=int, default=1280, help="at least 500, the narrowest that Chromium makes")
    parser.add_argument("--height", type=int, help=f"default: {HEIGHT}, and {TALL_HEIGHT} of {', '.join(TALL)}")
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
            _record_busy_hour(client)
            _fill(client)
            with _serve(client, logged_in=not arguments.logged_out) as address:
                _wait_for_charts(f"{address}/")
                _wait_for_heartbeats(client)
                for name, path in PAGES.items():
                    for scheme in SCHEMES:
                        target = arguments.folder / f"{name}-{scheme}.png"
                        height = arguments.height or (TALL_HEIGHT if name in TALL else HEIGHT)
                        _take(program, f"{address}{path}", target, scheme, arguments.width, height)


def _record_busy_hour(client: EcsQueue) -> None:
    """Write to the journal what an hour of some 15 requests a minute leaves there, for the charts."""
    encoder, rng = open_event_encoder(client.config), random.Random(3)
    with closing(open_journal(client.config)) as journal:
        now = journal.now()
        for ago in range(MINUTES, 0, -1):
            wait = 4.0 if 20 < ago < 32 else 0.8  # a while without enough workers
            texts = []
            for number in range(15 + round(6 * math.sin(ago / 7)) + rng.randrange(4)):
                queued_at = now - ago * MINUTE + rng.random() * MINUTE
                launched_at = queued_at + wait * rng.lognormvariate(0, 0.5)
                names = {"id": f"past-{ago}-{number}", "queue": "etl"}
                submission = {"owner": "", "nonce": "", "namespace": "", "envelope": b"{}"}
                launch = {"launch": 1, "arn": "", "queued_at": queued_at}
                state = "FAILED" if rng.random() < 0.06 else "SUCCESS"
                end = {"state": state, "exit_code": 0, "stop_code": "", "attempts": 1, "reason": ""}
                texts.append(encoder.encode(queued_at, "request.submitted", {**names, **submission}))
                texts.append(encoder.encode(launched_at, "launch.started", {**names, **launch}))
                texts.append(encoder.encode(launched_at + 40 * rng.random(), "request.ended", {**names, **end}))
            journal.append(encoder.build_batch(secrets.token_hex(8), 1, "worker-1", texts, []))


def _fill(client: EcsQueue) -> None:
    """Submit requests that succeed, one that fails, and some that wait in a paused queue; wait for their ends."""
    job = "echo 'reading 1,200 orders'; sleep 0.{}; echo 'wrote 1,200 rows'"
    tasks: list[dict[str, Any]] = [
        {"command": ["sh", "-c", job.format(day)], "id": f"orders-2026-07-{day:02}", "queue": "etl"}
        for day in range(1, 10)
        if f"orders-2026-07-{day:02}" != FAILED
    ]
    script = "echo 'reading 1,200 orders'; sleep 0.4; echo 'orders.csv: row 812 has no price'; exit 3"
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


def _wait_for_charts(address: str) -> None:
    """Load the page until the journal was read, at most `_SECONDS`."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:  # noqa: S310 - our own server
            if b'<figure class="chart">' in answer.read():
                return
    sys.exit("the page shows no charts")


def _wait_for_heartbeats(client: EcsQueue) -> None:
    """Wait until the workers have reported what they launched and ended, at most `_SECONDS`."""
    ended = sum(record.is_terminal for record in client.tasks())
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if sum(worker.ended_total for worker in client.ledger.list_workers()) >= ended:
            return
        time.sleep(0.1)
    sys.exit("the workers report nothing")


@contextmanager
def _serve(client: EcsQueue, logged_in: bool) -> Iterator[str]:
    """Yield the address of the pages, with each request logged in or none."""
    access = Access(token=secrets.token_hex(16), allow_changes=True)
    broker = open_broker(client.config)
    pages = WebApp(client, broker, access, make_presentation(), make_commands()).build()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if logged_in and "headers" in scope:
            name = cookie_name(dict(scope["headers"])[b"host"].decode())
            cookie = (b"cookie", f"{name}={access.session}".encode())
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
        picture.convert("RGB").quantize(_COLORS, Image.Quantize.MEDIANCUT).save(target, optimize=True)


if __name__ == "__main__":
    main()
