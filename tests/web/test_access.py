"""Who may see the page: hosts, origins, the token, and the headers of every answer."""

from __future__ import annotations

import re

import pytest

from ecs_queue.testing import MemoryQueue
from ecs_queue.web.access import SECURITY_HEADERS, Access, is_own_origin
from tests.web.conftest import TOKEN, Site, open_site

PAGES = (
    "/",
    "/tasks",
    "/tasks/nothing",
    "/tasks/nothing/arguments",
    "/runners",
    "/dead",
    "/journal",
    "/login",
    "/nowhere",
    "/static/style.css",
)


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_has_the_headers(site: Site, path: str) -> None:
    answer = site.browser.get(path)
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)


@pytest.mark.parametrize("path", [path for path in PAGES if not path.startswith("/static")])
def test_no_page_uses_a_script_or_style_of_another_origin(site: Site, path: str) -> None:
    text = site.browser.get(path).text
    assert re.findall(r'(?:src|href|action)="(?!/|#main")[^"]*"', text) == []
    assert re.findall(r"<script(?! src=)|<style|\son\w+=|\sstyle=", text) == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "queue.example.com.evil:80"])
def test_a_request_for_another_host_is_refused(site: Site, host: str) -> None:
    assert site.browser.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:1", "[::1]:8480", "QUEUE.example.com", "127.0.0.1"])
def test_a_request_for_its_own_names_is_answered(site: Site, host: str) -> None:
    assert site.browser.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_origin_is_refused(site: Site, headers: dict[str, str]) -> None:
    answer = site.browser.post("/login", data={"token": TOKEN}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_form_of_its_own_origin_logs_in(site: Site) -> None:
    headers = {"origin": "http://127.0.0.1:8480", "sec-fetch-site": "same-origin"}
    answer = site.browser.post("/login", data={"token": TOKEN}, headers=headers, follow_redirects=False)
    assert answer.status_code == 303
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=lax" in answer.headers["set-cookie"]
    assert TOKEN not in answer.headers["set-cookie"]


def test_a_browser_says_from_which_page_a_form_of_its_own_comes(site: Site) -> None:
    # With no-referrer it would send the origin `null`, as that of a page of another origin.
    assert site.browser.get("/login").headers["referrer-policy"] == "same-origin"


def test_a_wrong_token_does_not_log_in(site: Site) -> None:
    answer = site.browser.get("/login?token=wrong")
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_large_body_is_refused(site: Site) -> None:
    assert site.browser.post("/login", data={"token": "x" * 20_000}).status_code == 413


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_on_an_address_that_others_reach_each_page_needs_the_token(host: str) -> None:
    with MemoryQueue() as queue:
        site = open_site(queue, host)
        for path in (
            "/",
            "/tasks",
            "/tasks/x",
            "/tasks/x/arguments",
            "/runners",
            "/dead",
            "/journal",
            "/journal/events",
            "/find?id=x",
        ):
            answer = site.browser.get(path, follow_redirects=False)
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        site.log_in()
        assert "Queues" in site.browser.get("/").text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/tasks", "/tasks/x", "/tasks/x/arguments", "/runners", "/dead", "/journal"])
def test_no_page_takes_anything_but_a_look(site: Site, method: str, path: str) -> None:
    site.log_in()
    assert site.browser.request(method, path, headers={"content-length": "0"}).status_code == 405


def test_a_representation_does_not_show_the_token() -> None:
    assert TOKEN not in repr(Access(token=TOKEN))


def test_a_request_without_origin_comes_from_no_page() -> None:
    assert is_own_origin({"host": "127.0.0.1"})
