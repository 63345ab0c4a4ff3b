"""`web` as a process: it serves the namespace of a real server, with live events, until it is stopped."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ecs_queue.broker import open_broker
from ecs_queue.cli.web import _listen, make_commands, make_presentation
from ecs_queue.client.client import EcsQueue
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.protocol.states import State
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import ledger_prefix
from ecs_queue.web.access import Access
from ecs_queue.web.app import WebApp
from tests.cli.conftest import Invoke
from tests.processes import CLI_COMMAND, merged_environ
from tests.wait import wait_until

TOKEN = "0123456789abcdef-token"

pytestmark = pytest.mark.server


@pytest.fixture
def address(no_worker_environ: Mapping[str, str]) -> Iterator[str]:
    """The address with the token, as the command prints it."""
    command = [*CLI_COMMAND, "web", "--port", "0"]
    process = subprocess.Popen(command, env=merged_environ(no_worker_environ), stderr=subprocess.PIPE)
    assert process.stderr is not None
    found = re.search(rb"http://\S+", process.stderr.readline())
    assert found is not None
    yield found[0].decode()
    process.send_signal(signal.SIGTERM)
    _, logged = process.communicate(timeout=60)
    assert logged == b""
    assert process.returncode in (0, -signal.SIGTERM)


def test_it_shows_a_request_and_sends_its_events(address: str, no_worker_environ: Mapping[str, str]) -> None:
    base = address.partition("/login")[0]
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        queue.submit(["echo", "swordfish"], id="waits")
        queue.stop("waits", by="a test")
    with urllib.request.urlopen(f"{base}/tasks/waits", timeout=60) as answer:
        text = answer.read().decode()
    assert "REVOKED" in text
    assert "&#34;command&#34;" in text
    assert "swordfish" not in text
    with urllib.request.urlopen(f"{base}/journal/events?after=0-0.0", timeout=60) as answer:
        lines = (line.decode() for line in answer)
        event = next(json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
    assert event[1:3] == ["request.submitted", "waits"]


def test_the_printed_address_logs_in_and_shows_the_arguments(
    address: str, no_worker_environ: Mapping[str, str]
) -> None:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        queue.submit(["echo", "swordfish"], id="waits")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    opener.open(address, timeout=60).close()
    with opener.open(f"{address.partition('/login')[0]}/tasks/waits", timeout=60) as answer:
        assert "swordfish" in answer.read().decode()


@pytest.fixture
def queue(no_worker_environ: Mapping[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as opened:
        yield opened


@pytest.fixture
def browser(queue: EcsQueue) -> Iterator[TestClient]:
    """A program that has the token."""
    with closing(open_broker(queue.config)) as broker:
        access = Access(token=TOKEN, allow_changes=True)
        app = WebApp(queue, broker, access, make_presentation(), make_commands()).build()
        yield TestClient(app, base_url="http://localhost", headers={"authorization": f"Bearer {TOKEN}"})


def change(browser: TestClient, path: str, once: str = "") -> str:
    """Ask for a change; return the path of the page that shows it."""
    answer = browser.post(path, data={"once": once, "x": "y"}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def submit_and_stop(queue: EcsQueue, browser: TestClient) -> None:
    """Submit a request and stop it; return when the journal has its command, which the ledger has removed."""
    queue.submit(["echo", "swordfish"], id="over")
    queue.stop("over", by="a test")
    wait_until(lambda: "&#34;hidden&#34;" in browser.get("/tasks/over").text, "the journal has the command")


def test_a_request_that_ended_is_replayed_under_a_new_id(queue: EcsQueue, browser: TestClient) -> None:
    submit_and_stop(queue, browser)
    new = change(browser, "/tasks/over/replay").removeprefix("/tasks/")
    assert new.startswith("over-r-")
    assert queue.status(new).state is State.QUEUED


def test_a_form_that_is_sent_twice_replays_once(queue: EcsQueue, browser: TestClient) -> None:
    submit_and_stop(queue, browser)
    first = change(browser, "/tasks/over/replay", once="0123abcd")
    assert first == "/tasks/over-r-0123abcd"
    assert change(browser, "/tasks/over/replay", once="0123abcd") == first
    others = {change(browser, "/tasks/over/replay", once) for once in ("", "", "0123abce", "../x", "0123ABCD")}
    assert len(others) == 5
    assert len(list(queue.tasks())) == 7


def test_a_repeated_request_links_to_its_origin_while_that_is_known(queue: EcsQueue, browser: TestClient) -> None:
    submit_and_stop(queue, browser)
    new = change(browser, "/tasks/over/replay")
    link = '<dt>Origin</dt><dd><a class="id" href="/tasks/over">over</a></dd>'
    wait_until(lambda: link in browser.get(new).text, "the client's journal has the submission")
    prefix = ledger_prefix(queue.config.namespace)
    with connect(queue.config.ledger_url, socket_timeout=5.0, max_connections=1) as server:
        assert server.delete(f"{prefix}r:over") == 1
    assert link in browser.get(new).text  # the journal still has it
    assert "<dt>Origin</dt>" not in browser.get("/tasks/over").text


def test_a_request_links_to_its_retry(
    queue: EcsQueue, browser: TestClient, invoke: Invoke, no_worker_environ: Mapping[str, str]
) -> None:
    submit_and_stop(queue, browser)
    assert "<dt>Retried as</dt>" not in browser.get("/tasks/over").text
    new = invoke("retry", "over", env=no_worker_environ).stdout.strip()
    link = f'<dt>Retried as</dt><dd><a class="id" href="/tasks/{new}">{new}</a></dd>'
    assert link in browser.get("/tasks/over").text


@pytest.mark.parametrize("after", ["x", "0-0", "1:2", "9" * 5000, "0-0.0\n", "\u0661-0.0"])
def test_events_after_what_is_no_event_are_refused(browser: TestClient, after: str) -> None:
    assert browser.get("/journal/events", params={"after": after}).status_code == 400
    assert browser.get("/journal/events", headers={b"last-event-id": after.encode()}).status_code == 400


def test_the_page_of_an_empty_journal_misses_no_event(browser: TestClient) -> None:
    assert 'data-after="0-0.0"' in browser.get("/journal").text


@pytest.mark.parametrize("after", ["x", "broken:0", "9" * 5000])
def test_a_list_from_a_place_that_there_is_not_is_refused(browser: TestClient, after: str) -> None:
    answer = browser.get("/tasks", params={"after": after})
    assert answer.status_code == 409
    assert "place in the list" in answer.text


def test_a_dead_letter_becomes_a_request_again(queue: EcsQueue, browser: TestClient) -> None:
    request = new_request(id="late", command=["true"], now=1_700_000_000.0, accept_seconds=60.0)
    letter = DeadLetter(key="letter", queue="default", reason="it was late", body=envelope.encode(request))
    queue.ledger.add_dead_letter(letter)
    new = change(browser, "/dead/letter/requeue").removeprefix("/tasks/")
    assert queue.status(new).state is State.QUEUED
    assert queue.ledger.list_dead_letters(10) == []
    # Of the message that became a dead letter there never was a request.
    origin = f'<dt>Origin</dt><dd><span class="id">{request.id}</span></dd>'
    wait_until(lambda: origin in browser.get(f"/tasks/{new}").text, "the client's journal has the submission")


def test_the_runners_of_a_queue_are_drained(queue: EcsQueue, browser: TestClient) -> None:
    queue.submit(["true"], queue="etl", id="busy")
    claim = ClaimRequest(claim="c", worker="w", args="{}", target="t", pool="etl.0123456789abcdef", payload="secret")
    record = queue.ledger.claim("busy", claim).record
    assert record is not None
    with connect(queue.config.ledger_url, socket_timeout=5.0, max_connections=1) as server:
        run = {"phase": "fetched", "boot": "b", "arn": "arn", "seen_at": f"{queue.ledger.now():.3f}"}
        server.hset(f"{ledger_prefix(queue.config.namespace)}run:{record.run}", mapping=run)
    assert change(browser, "/queues/etl/drain") == "/"
    (found,) = queue.ledger.list_runs()
    assert found.closed


def test_the_overview_has_charts_of_what_the_journal_has(queue: EcsQueue, browser: TestClient) -> None:
    queue.submit(["true"], id="over")
    queue.stop("over", by="a test")

    def numbers() -> list[str]:
        text = browser.get("/").text
        return re.findall(r'<tr><th scope="row">\d\d:\d\d</th>(.*?)</tr>', text)

    wait_until(numbers, "the client's journal has the submission")
    cells = re.findall(r"<td[^>]*>([^<]*)", numbers()[0])
    assert cells[0] == "1"
    text = browser.get("/").text
    assert text.count('<svg viewBox="0 0 600 100"') == 3
    assert "Submitted: at most 1, at " in text
    assert "style=" not in text


def test_a_short_token_is_refused(invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("short\n")
    result = invoke("web", "--token-file", str(path), env=no_worker_environ)
    assert result.exit_code == 2
    assert "expected at least 16 characters, found 5" in result.stderr


def test_an_answer_in_several_packets_does_not_wait_for_the_browsers_acknowledgement() -> None:
    with (
        _listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname(), timeout=60),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
