"""The application below the path of another one: every link, form and redirect stays there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.protocol.states import State
from ecs_queue.testing import MemoryQueue
from ecs_queue.web.access import Access
from ecs_queue.web.app import WebApp
from ecs_queue.web.reading import PAGE_SIZE
from tests.web.conftest import TOKEN, Site

BASE = "/prefix/queue"
OWN = {"origin": "http://127.0.0.1:8480", "sec-fetch-site": "same-origin"}


@pytest.fixture
def mounted() -> Iterator[Site]:
    """A page in an application behind a proxy that passes its prefix on."""
    with MemoryQueue() as queue:
        queue.submit_many([{"command": ["true"], "id": f"request-{number:03}"} for number in range(PAGE_SIZE + 5)])
        access = Access(token=TOKEN, allow_changes=True)
        pages = WebApp(queue, queue._broker, access, make_presentation(), make_commands()).build()
        outer = Starlette(routes=[Mount("/queue", pages)])
        yield Site(TestClient(outer, base_url="http://127.0.0.1:8480", root_path="/prefix"), queue)


@pytest.mark.parametrize("logged_in", [False, True])
@pytest.mark.parametrize(
    "path", ["/", "/tasks", "/tasks?queue=etl", "/tasks/request-001", "/runners", "/dead", "/journal", "/x"]
)
def test_every_link_stays_below_the_path(mounted: Site, path: str, logged_in: bool) -> None:
    if logged_in:
        mounted.browser.get(f"{BASE}/login?token={TOKEN}")
    text = mounted.browser.get(f"{BASE}{path}").text
    found = re.findall(r'(?:href|action|src)="([^"]*)"', text)
    assert f"{BASE}/static/page.js" in found
    assert [link for link in found if not link.startswith((f"{BASE}/", "#", "?"))] == []
    assert f'data-base="{BASE}"' in text  # for the links and the stream of page.js


def test_its_links_lead_to_pages(mounted: Site) -> None:
    mounted.browser.get(f"{BASE}/login?token={TOKEN}")
    seen, found = set[str](), {f"{BASE}/"}
    while found:
        path = found.pop()
        seen.add(path)
        answer = mounted.browser.get(path.replace("&amp;", "&"))
        assert answer.status_code == 200, path
        links = re.findall(r'(?:href|src)="([^"#?]*)', answer.text) if "html" in answer.headers["content-type"] else []
        found |= {link for link in links if link} - seen
    assert {f"{BASE}/tasks", f"{BASE}/dead", f"{BASE}/journal", f"{BASE}/static/style.css"} <= seen


def test_redirects_stay_below_the_path(mounted: Site) -> None:
    browser = mounted.browser
    log_in = browser.get(f"{BASE}/login?token={TOKEN}", follow_redirects=False)
    assert log_in.headers["location"] == f"{BASE}/"
    found = browser.get(f"{BASE}/find?id=request-001", follow_redirects=False)
    assert found.headers["location"] == f"{BASE}/tasks/request-001"
    assert browser.get(f"{BASE}/find", follow_redirects=False).headers["location"] == f"{BASE}/tasks"


def test_a_log_in_leads_back_to_the_page_below_the_path(mounted: Site) -> None:
    (link,) = set(re.findall(r'href="([^"]*/login[^"]*)"', mounted.browser.get(f"{BASE}/tasks/request-001").text))
    answer = mounted.browser.get(f"{link}&token={TOKEN}", follow_redirects=False)
    assert answer.headers["location"] == f"{BASE}/tasks/request-001"
    slash = mounted.browser.get(f"{BASE}/tasks/request-001/?x=1", follow_redirects=False)
    assert slash.headers["location"] == f"{BASE}/tasks/request-001?x=1"


@pytest.mark.parametrize("path", ["/static/nothing", "/static/../x"])
def test_the_page_about_a_missing_file_has_the_same_links(mounted: Site, path: str) -> None:
    answer = mounted.browser.get(f"{BASE}{path}")
    assert answer.status_code == 404
    assert f'href="{BASE}/static/style.css"' in answer.text
    assert f'href="{BASE}/tasks"' in answer.text


@pytest.mark.parametrize("path", ["/static/", "/static/nothing/"])
def test_a_slash_behind_the_files_leads_to_no_file_and_not_round_and_round(mounted: Site, path: str) -> None:
    answer = mounted.browser.get(f"{BASE}{path}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, f"{BASE}{path.rstrip('/')}")
    assert mounted.browser.get(f"{BASE}{path}").status_code == 404


def test_a_form_leads_to_the_page_of_its_effect(mounted: Site) -> None:
    browser = mounted.browser
    browser.get(f"{BASE}/login?token={TOKEN}")
    text = browser.get(f"{BASE}/tasks/request-001").text
    (action,) = set(re.findall(r'action="([^"]*/stop)"', text))
    (form_token,) = set(re.findall(r'name="form_token" value="(\w+)"', text))
    answer = browser.post(action, data={"form_token": form_token}, headers=OWN, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BASE}/tasks/request-001")
    assert mounted.queue.status("request-001").state is State.REVOKED
