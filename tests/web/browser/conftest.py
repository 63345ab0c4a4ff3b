"""A browser, and `ecs-queue web` on a local stack with a worker: one of each for the tests of a process."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from ecs_queue.client.client import EcsQueue
from ecs_queue.ledger.entries import DeadLetter, dead_letter_key
from ecs_queue.local.stack import LocalStack, StackOptions
from tests.browser import BrowserLog, open_page, run_chromium
from tests.processes import CLI_COMMAND, QUICK_SETTINGS
from tests.servers import require_redis_binary

_STOP_SECONDS = 60
#: Each test has a queue of its own, so that its numbers on the overview are its own.
QUEUES = ("default", "story", "sent", "keyboard", "plain", "idle", "twice_true", "twice_false", "again")

FAILED, WAITING = "axe-failed-" + "x" * 37, "axe-waiting"
#: Name -> path, and whether the browser is logged in.
PAGES: Mapping[str, tuple[str, bool]] = {
    "overview": ("/", True),
    "overview, logged out": ("/", False),
    "tasks": ("/tasks", True),
    "tasks, none": ("/tasks?reason=nothing+has+this", True),
    "failed request": (f"/tasks/{FAILED}", True),
    "failed request, logged out": (f"/tasks/{FAILED}", False),
    "arguments then and now": (f"/tasks/{FAILED}/arguments", True),
    "waiting request": (f"/tasks/{WAITING}", True),
    "unknown request": ("/tasks/unknown", True),
    "dead letters": ("/dead", True),
    "runners": ("/runners", True),
    "journal": ("/journal", True),
    "log-in": ("/login", False),
    "log-in that failed": ("/login?token=wrong", False),
}


@dataclass(frozen=True, repr=False)
class Site:
    """The pages of a namespace in which a worker runs.

    Attributes:
        address: Of the pages, without a slash at the end.
        login_address: As the command prints it.
        environ: Connects a process to the namespace.
        client: Of the namespace.
    """

    address: str
    login_address: str
    environ: Mapping[str, str]
    client: EcsQueue


#: Opens a page of a profile of its own; takes the options of Playwright's `Browser.new_context`.
Visit = Callable[..., tuple[Page, BrowserLog]]


@contextmanager
def run_web(environ: Mapping[str, str], *options: str) -> Iterator[str]:
    """Run `ecs-queue web`; yield the address that it prints. It logs nothing else."""
    command = [*CLI_COMMAND, "web", *options]
    with subprocess.Popen(command, env=dict(environ), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            found = re.search(rb"http://\S+", process.stderr.readline())
            assert found is not None
            yield found[0].decode()
        finally:
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=_STOP_SECONDS)
        assert logged == b""


def make_failing_request(site: Site, queue: str, file: Path) -> str:
    """A request that has failed, and succeeds as soon as the file exists; return its id."""
    script = f"echo 'looking for orders'; test -e '{file}' || {{ echo 'there are no orders yet'; exit 3; }}"
    result = site.client.submit(["sh", "-c", script], queue=queue, id=f"{queue}-orders").result(timeout=60)
    assert (result.state, result.exit_code) == ("FAILED", 3)
    return result.id


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser. No test of the package uses asyncio: Playwright has the thread's event loop."""
    with run_chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def site(chromium: Browser) -> Iterator[Site]:
    """The pages, with the buttons for who is logged in. After the browser: nothing starts in vain without one."""
    require_redis_binary()
    prefix = "AIRFLOW__ECS_QUEUE__"
    quick = {name.removeprefix(prefix).lower(): value for name, value in QUICK_SETTINGS.items()}
    options = StackOptions(worker_args=("--queues", ",".join(QUEUES)), config_values=quick)
    with (
        LocalStack(options) as stack,
        EcsQueue.from_config(environ=stack.environ, owner="") as client,
        run_web(stack.environ, "--port", "0", "--allow-changes") as login_address,
    ):
        yield Site(login_address.partition("/login")[0], login_address, stack.environ, client)


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Opens pages; they are closed after the test."""
    with ExitStack() as pages:
        yield lambda **options: pages.enter_context(open_page(chromium, **options))


@pytest.fixture(scope="package")
def contents(site: Site) -> Iterator[None]:
    """Long words, an error, a request that waits, and a dead letter, so that no table is empty."""
    client = site.client
    script = f"echo {'x' * 400}; exit 3"
    client.submit(["sh", "-c", script], id=FAILED, queue="idle").result(timeout=60)
    client.pause("axe")
    client.submit(["true"], id=WAITING, queue="axe")
    body = f'{{"id": "{FAILED}"}}'.encode()
    queue = "axe-of-a-department"
    key = dead_letter_key(queue, "0" * 16)
    letter = DeadLetter(key=key, queue=queue, reason="no command: " + "x" * 300, body=body)
    client.ledger.add_dead_letter(letter)
    yield
    client.ledger.delete_dead_letters([letter.key])
    client.stop(WAITING, by="the test")
    client.resume("axe")
