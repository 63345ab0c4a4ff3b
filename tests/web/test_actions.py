"""What the page changes: with the token and a form of its own, and in no other way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.ledger.base import DeadLetter
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.states import State
from ecs_queue.testing import MemoryQueue
from tests.web.conftest import TOKEN, Site, open_site
from tests.worker_info import make_worker_info

PATHS = (
    "/tasks/one/stop",
    "/tasks/one/replay",
    "/dead/x/requeue",
    "/queues/etl/pause",
    "/queues/etl/resume",
    "/queues/etl/drain",
)
OWN = {"origin": "http://127.0.0.1:8480", "sec-fetch-site": "same-origin"}


@pytest.fixture
def writable() -> Iterator[Site]:
    with MemoryQueue() as queue:
        queue.submit(["true"], id="one", queue="etl")
        yield open_site(queue, allow_changes=True)


def form_of(site: Site, page: str = "/") -> Mapping[str, str]:
    """The hidden member of the forms of a page."""
    found = re.search(r'name="form_token" value="(\w+)"', site.browser.get(page).text)
    assert found is not None
    return {"form_token": found[1]}


def assert_unchanged(site: Site) -> None:
    assert site.queue.status("one").state is State.QUEUED
    assert site.queue.paused_queues() == {}
    assert len(list(site.queue.tasks())) == 1


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_changed(writable: Site, path: str) -> None:
    logged_in = open_site(writable.queue, allow_changes=True)
    logged_in.log_in()
    form = form_of(logged_in)
    assert writable.browser.post(path, data=form, headers=OWN).status_code == 403
    assert writable.browser.post(path, data=form, headers={"authorization": "Bearer wrong"}).status_code == 403
    assert_unchanged(writable)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", [{}, {"form_token": ""}, {"form_token": TOKEN}])
def test_without_the_forms_own_token_nothing_is_changed(writable: Site, path: str, form: dict[str, str]) -> None:
    writable.log_in()
    assert writable.browser.post(path, data={"x": "y", **form}, headers=OWN).status_code == 403
    assert_unchanged(writable)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
    ],
)
def test_a_request_of_another_origin_or_host_changes_nothing(
    writable: Site, path: str, headers: dict[str, str], status: int
) -> None:
    writable.log_in()
    assert writable.browser.post(path, data=form_of(writable), headers=headers).status_code == status
    assert_unchanged(writable)


@pytest.mark.parametrize("path", PATHS)
def test_a_look_changes_nothing(writable: Site, path: str) -> None:
    writable.log_in()
    assert writable.browser.get(path).status_code == 405
    assert_unchanged(writable)


@pytest.mark.parametrize("path", PATHS)
def test_without_allow_changes_nothing_is_changed(path: str) -> None:
    with MemoryQueue() as queue:
        queue.submit(["true"], id="one", queue="etl")
        site = open_site(queue)
        site.log_in()
        answer = site.browser.post(path, data={"x": "y"}, headers={**OWN, "authorization": f"Bearer {TOKEN}"})
        assert answer.status_code in (404, 405)
        assert "form_token" not in site.browser.get("/").text
        assert_unchanged(site)


def test_a_queue_is_paused_and_resumed(writable: Site) -> None:
    writable.log_in()
    assert "PAUSED" in writable.browser.post("/queues/etl/pause", data=form_of(writable), headers=OWN).text
    assert list(writable.queue.paused_queues()) == ["etl"]
    assert "PAUSED" not in writable.browser.post("/queues/etl/resume", data=form_of(writable), headers=OWN).text
    assert writable.queue.paused_queues() == {}


def test_a_queue_that_no_worker_serves_is_shown_as_that_when_it_is_paused(writable: Site) -> None:
    writable.log_in()
    writable.queue.ledger.heartbeat(make_worker_info("w", queues=["etl"]), 60.0)
    text = writable.browser.post("/queues/etl/pause", data=form_of(writable), headers=OWN).text
    assert "no live worker serves it" not in text
    text = writable.browser.post("/queues/elt/pause", data=form_of(writable), headers=OWN).text
    assert text.count("no live worker serves it") == 1


@pytest.mark.parametrize("action", ["pause", "resume", "drain"])
def test_a_name_that_no_queue_can_have_is_refused(writable: Site, action: str) -> None:
    writable.log_in()
    answer = writable.browser.post(f"/queues/bad%20name/{action}", data=form_of(writable), headers=OWN)
    assert answer.status_code == 409
    assert "queue: expected 1 to 64 of A-Z" in answer.text
    assert_unchanged(writable)


def test_a_request_is_stopped(writable: Site) -> None:
    writable.log_in()
    text = writable.browser.post("/tasks/one/stop", data=form_of(writable), headers=OWN).text
    assert "REVOKED" in text
    assert "web page" in text


def test_a_program_uses_the_token_itself(writable: Site) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = writable.browser.post("/tasks/one/stop", data={"x": "y"}, headers=headers, follow_redirects=False)
    assert answer.status_code == 303
    assert writable.queue.status("one").state is State.REVOKED


def test_an_unknown_request_is_not_stopped_ahead(writable: Site) -> None:
    writable.log_in()
    answer = writable.browser.post("/tasks/unknown/stop", data=form_of(writable), headers=OWN)
    assert answer.status_code == 409
    assert "no request unknown is known" in answer.text
    assert_unchanged(writable)


@pytest.mark.parametrize("path", ["/queues/etl/pause", "/queues/etl/resume", "/queues/etl/drain", "/tasks/one/stop"])
def test_a_second_press_leads_where_the_first_one_led(writable: Site, path: str) -> None:
    writable.log_in()
    form = form_of(writable)
    pages = [writable.browser.post(path, data=form, headers=OWN) for _ in range(2)]
    assert [page.status_code for page in pages] == [200, 200]
    assert pages[0].url == pages[1].url


def test_a_second_stop_changes_nothing_of_the_first(writable: Site) -> None:
    writable.queue.stop("one", by="alice")
    writable.log_in()
    text = writable.browser.post("/tasks/one/stop", data=form_of(writable), headers=OWN).text
    assert "alice" in text
    assert "web page" not in text


def bury(queue: MemoryQueue) -> None:
    """Make a dead letter of a request that came too late."""
    request = new_request(id="late", command=["true"], now=1_700_000_000.0, accept_seconds=60.0)
    queue.ledger.add_dead_letter(
        DeadLetter(key="letter", queue="default", reason="it was late", body=envelope.encode(request))
    )


def test_a_second_requeue_says_that_it_was_done_and_leads_to_the_request(writable: Site) -> None:
    bury(writable.queue)
    writable.log_in()
    form = {**form_of(writable, "/dead"), "message_id": "late"}
    assert 'name="message_id" value="late"' in writable.browser.get("/dead").text
    first = writable.browser.post("/dead/letter/requeue", data=form, headers=OWN)
    new = first.url.path.removeprefix("/tasks/")
    assert writable.queue.status(new).state is State.QUEUED
    second = writable.browser.post("/dead/letter/requeue", data=form, headers=OWN)
    assert second.status_code == 409
    assert "<h1>Already requeued</h1>" in second.text
    assert f'<a href="/tasks/{new}">Request {new}</a>' in second.text
    assert len(list(writable.queue.tasks())) == 2


@pytest.mark.parametrize("message_id", ["", "late", "one", "\0\n<b>", "x" * 5000])
def test_a_requeue_of_what_was_purged_leads_back_to_the_list(writable: Site, message_id: str) -> None:
    bury(writable.queue)
    writable.log_in()
    form = {**form_of(writable, "/dead"), "message_id": message_id}
    writable.queue.ledger.delete_dead_letters(["letter"])
    answer = writable.browser.post("/dead/letter/requeue", data=form, headers=OWN)
    assert answer.status_code == 409
    assert "<h1>No longer a dead letter</h1>" in answer.text
    assert '<a href="/dead">Dead letters</a></p>' in answer.text
    assert_unchanged(writable)


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("/dead/letter/requeue", '<a href="/dead">Dead letters</a></p>'),
        ("/tasks/unknown/stop", '<a href="/tasks/unknown">Request unknown</a></p>'),
        ("/tasks/unknown/replay", '<a href="/tasks/unknown">Request unknown</a></p>'),
    ],
)
def test_what_cannot_be_done_leads_back_to_the_page_of_its_button(writable: Site, path: str, link: str) -> None:
    writable.queue.ledger.add_dead_letter(DeadLetter(key="letter", queue="etl", reason="it is not JSON", body=b"{"))
    writable.log_in()
    answer = writable.browser.post(path, data=form_of(writable), headers=OWN)
    assert answer.status_code == 409
    assert "<h1>Nothing was done</h1>" in answer.text
    assert link in answer.text
