"""Who may see the page: hosts, origins, the token, and the headers of every answer."""

from __future__ import annotations

import html
import re
from urllib.parse import quote

import pytest

from ecs_queue.errors import UsageError
from ecs_queue.testing import MemoryQueue
from ecs_queue.web.access import SECURITY_HEADERS, Access, is_own_origin, parse_allowed_host
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
            assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={quote(path, safe='')}")
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


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("queue.example.com:443", "https://queue.example.com", True),
        ("queue.example.com", "https://queue.example.com", True),
        ("Queue.example.com:80", "http://queue.example.com", True),
        ("[::1]:80", "http://[::1]", True),
        ("queue.example.com:443", "http://queue.example.com", False),
        ("queue.example.com:80", "https://queue.example.com", False),
        ("queue.example.com", "https://queue.example.com:8443", False),
        ("queue.example.com:8480", "http://queue.example.com:8481", False),
        ("queue.example.com", "https://queue.example.com.evil", False),
        ("queue.example.com", "null", False),
        ("", "null", False),
        ("queue.example.com:x", "https://queue.example.com", False),
    ],
)
def test_a_port_that_a_browser_leaves_out_may_be_in_the_host(host: str, origin: str, is_own: bool) -> None:
    assert is_own_origin({"host": host, "origin": origin}) is is_own


@pytest.mark.parametrize("host", ["10.0.0.7:8480", "evil.example", ""])
def test_a_load_balancer_may_ask_for_the_health_under_any_name(host: str) -> None:
    with MemoryQueue() as queue:
        site = open_site(queue, "0.0.0.0")
        answer = site.browser.get("/healthz", headers={"host": host})
        assert (answer.status_code, answer.text) == (200, "ok\n")
        assert site.browser.get("/healthz/x", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("path", ["/tasks/x", "/tasks?queue=a+b&state=FAILED", "/find?id=x", "/dead"])
def test_a_log_in_leads_back_to_the_page_that_was_asked_for(path: str) -> None:
    with MemoryQueue() as queue:
        browser = open_site(queue, "0.0.0.0").browser
        asked = browser.get(path)
        (following,) = re.findall(r'name="next" value="([^"]*)"', asked.text)
        form = {"next": html.unescape(following)}
        failed = browser.post("/login", data={**form, "token": "wrong"})
        assert f'name="next" value="{following}"' in failed.text
        done = browser.post("/login", data={**form, "token": TOKEN}, follow_redirects=False)
        assert (done.status_code, done.headers["location"]) == (303, path)


@pytest.mark.parametrize("path", ["/tasks", "/tasks/nothing", "/journal?x=1", "/nowhere"])
def test_the_link_to_the_log_in_leads_back_to_its_page(site: Site, path: str) -> None:
    (link,) = set(re.findall(r'href="(/login[^"]*)"', site.browser.get(path).text))
    answer = site.browser.get(f"{html.unescape(link)}&token={TOKEN}", follow_redirects=False)
    assert answer.headers["location"] == path


@pytest.mark.parametrize(
    "place",
    ["", "//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a b", "/\t/evil.example", "/\n", "/é"],
)
def test_a_log_in_leads_to_no_other_server(site: Site, place: str) -> None:
    for answer in (
        site.browser.get("/login", params={"token": TOKEN, "next": place}, follow_redirects=False),
        site.browser.post("/login", data={"token": TOKEN, "next": place}, follow_redirects=False),
    ):
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_behind_tls_the_cookie_is_for_tls_only(site: Site, scheme: str) -> None:
    answer = site.browser.get(f"{scheme}://queue.example.com/login?token={TOKEN}", follow_redirects=False)
    assert ("Secure" in answer.headers["set-cookie"]) == (scheme == "https")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/tasks/", "/tasks"),
        ("/tasks/x/?show=1", "/tasks/x?show=1"),
        ("/tasks/a%20b/", "/tasks/a%20b"),
        ("//evil.example/", "/evil.example"),
        ("//evil.example//", "/evil.example"),
    ],
)
def test_a_slash_at_the_end_is_left_out_on_the_same_server(site: Site, path: str, location: str) -> None:
    # An address with a scheme would be one with http behind a proxy with TLS.
    answer = site.browser.get(f"http://127.0.0.1:8480{path}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, location)


def test_a_form_with_a_slash_at_the_end_has_no_page(site: Site) -> None:
    assert site.browser.post("/tasks/x/stop/", headers={"content-length": "0"}).status_code == 404


@pytest.mark.parametrize(
    ("text", "name"),
    [("queue.example.com", "queue.example.com"), ("Queue.Example.com", "queue.example.com"), ("[::1]", "::1")],
)
def test_the_name_of_an_allowed_host_is_as_browsers_send_it(text: str, name: str) -> None:
    assert parse_allowed_host(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "queue.example.com:8443", "https://queue.example.com", "queue.example.com/path", "[::1]:80", "a@b", "*.x:"],
)
def test_an_allowed_host_that_no_browser_sends_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a name or an address without scheme, port and path"):
        parse_allowed_host(text)
