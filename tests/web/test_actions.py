"""What the page changes: with the token and a form of its own, and in no other way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.protocol.states import State
from ecs_queue.testing import MemoryQueue
from tests.web.conftest import TOKEN, Site, open_site

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
