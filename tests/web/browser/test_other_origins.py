"""What pages of other origins, and other names of this server, can do in a browser that is logged in: nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

import pytest
from playwright.sync_api import Page, Response, expect

from tests.browser import OTHER_NAME
from tests.web.browser.conftest import Site, Visit
from tests.web.browser.other_site import serve_pages

#: On another port the browser sends the cookie along; under another name it is another site.
HOSTS = ("127.0.0.1", "localhost", OTHER_NAME)
#: Requests that a script can make; "form_token=..." is the token of the page's own forms, as if it had been stolen.
_FORM = "body: new URLSearchParams(form)"
REQUESTS = {
    "a form by fetch": f"fetch(target, {{method: 'POST', mode: 'no-cors', credentials: 'include', {_FORM}}})",
    "text by fetch": "fetch(target, {method: 'POST', mode: 'no-cors', credentials: 'include', body: form})",
    "another type": f"fetch(target, {{method: 'POST', credentials: 'include', {_FORM}, headers: {{'x-a': 'b'}}}})",
    "another method": f"fetch(target, {{method: 'PUT', credentials: 'include', {_FORM}}})",
    "a token": f"fetch(target, {{method: 'POST', {_FORM}, headers: {{authorization: 'Bearer x'}}}})",
    "a beacon": "navigator.sendBeacon(target, new URLSearchParams(form))",
}


@pytest.fixture
def page(site: Site, visit: Visit) -> Iterator[Page]:
    """Of a browser that is logged in. The queue `other` is not paused before and after."""
    opened, _ = visit()
    opened.goto(site.login_address)
    expect(opened.get_by_text("Logged in.")).to_be_visible()
    site.client.submit(["true"], queue="idle").result(timeout=60)
    assert "idle" not in site.client.paused_queues()
    yield opened
    site.client.resume("idle")


def form_token(page: Page) -> str:
    """That of the forms of the page."""
    return str(page.locator("input[name=form_token]").first.get_attribute("value"))


def answer_of(page: Page, script: str, target: str, form: str) -> str:
    """Make a request as a script of the page; return its status, its type, or the error, once it was answered."""
    make = f"""async ([target, form]) => {{
        try {{ const answer = await {script}; return String(answer.status ?? answer); }}
        catch (error) {{ return error.name; }}
    }}"""
    return str(page.evaluate(make, [target, form]))


@pytest.mark.parametrize("host", HOSTS)
def test_a_form_of_another_origin_changes_nothing(host: str, site: Site, page: Page) -> None:
    fields = f'<input name="form_token" value="{form_token(page)}">'
    target = f"{site.address}/queues/idle/pause"
    form = f'<form method="post" action="{escape(target)}">{fields}<button>Win</button></form>'
    with serve_pages({"/": f"<!doctype html><title>x</title>{form}"}) as other:
        page.goto(f"http://{host}:{other.port}/")
        with page.expect_response(target) as answer:
            page.get_by_role("button", name="Win").click()
    assert answer.value.status == 403
    assert "idle" not in site.client.paused_queues()


@pytest.mark.parametrize("host", HOSTS)
def test_a_script_of_another_origin_changes_and_reads_nothing(host: str, site: Site, page: Page) -> None:
    target, form = f"{site.address}/queues/idle/pause", f"form_token={form_token(page)}"
    with serve_pages({"/": "<!doctype html><title>x</title>"}) as other:
        page.goto(f"http://{host}:{other.port}/")
        for name, script in REQUESTS.items():
            answer = answer_of(page, script, target, form)
            assert answer in ("0", "TypeError", "true"), name
            assert "idle" not in site.client.paused_queues(), name
        reading = "fetch(target, {credentials: 'include', mode: MODE})"
        assert answer_of(page, reading.replace("MODE", "'cors'"), f"{site.address}/", "") == "TypeError"
        assert answer_of(page, reading.replace("MODE", "'no-cors'"), f"{site.address}/", "") == "TypeError"


def test_the_same_request_of_the_page_itself_is_obeyed(site: Site, page: Page) -> None:
    form = f"form_token={form_token(page)}"
    assert (
        answer_of(page, REQUESTS["a form by fetch"].replace("no-cors", "same-origin"), "/queues/idle/pause", form)
        == "200"
    )
    assert "idle" in site.client.paused_queues()


@pytest.mark.parametrize("host", HOSTS)
def test_no_page_of_another_origin_shows_this_one_in_a_frame(host: str, site: Site, page: Page) -> None:
    with serve_pages({"/": f'<!doctype html><title>x</title><iframe src="{site.address}/"></iframe>'}) as other:
        page.goto(f"http://{host}:{other.port}/")
        (frame,) = (each for each in page.frames if each is not page.main_frame)
        assert "ecs-queue" not in frame.content()


def test_under_another_name_the_server_shows_and_changes_nothing(site: Site, page: Page) -> None:
    token, port = form_token(page), site.address.rpartition(":")[2]
    answer = page.goto(f"http://{OTHER_NAME}:{port}/")
    assert isinstance(answer, Response)
    assert answer.status == 421
    assert "Queues" not in page.content()
    same_origin = REQUESTS["a form by fetch"].replace("no-cors", "same-origin")
    assert answer_of(page, same_origin, "/queues/idle/pause", f"form_token={token}") == "421"
    assert answer_of(page, "fetch(target)", "/tasks", "") == "421"
    assert "idle" not in site.client.paused_queues()


@pytest.mark.parametrize("host", HOSTS)
def test_a_link_on_another_page_finds_the_browser_logged_in(host: str, site: Site, visit: Visit) -> None:
    page, _ = visit()
    links = {"Log in": site.login_address, "Tasks": f"{site.address}/tasks"}
    text = "".join(f'<a href="{escape(address)}">{name}</a> ' for name, address in links.items())
    with serve_pages({"/": f"<!doctype html><title>x</title>{text}"}) as other:
        for name in links:
            page.goto(f"http://{host}:{other.port}/")
            page.get_by_role("link", name=name, exact=True).click()
            expect(page).to_have_url(re.compile(f"^{re.escape(site.address)}/(tasks)?$"))
            expect(page.get_by_text("Logged in.")).to_be_visible()
