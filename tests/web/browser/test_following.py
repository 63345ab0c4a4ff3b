"""The page of a request that runs: what a person has scrolled stays there, and the newest lines stay in sight."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.browser.conftest import Site, Visit

_LINES = "i=0; while true; do i=$((i+1)); echo \"line $i $(printf 'x%.0s' $(seq 900))\"; sleep 0.3; done"
_TOP = "element => element.scrollTop"


def wait_for_new_lines(page: Page) -> None:
    """Wait until the lines are other ones."""
    shown = page.locator("#output pre").inner_text()
    page.wait_for_function("shown => document.querySelector('#output pre').innerText !== shown", arg=shown)


def test_new_lines_leave_what_is_scrolled_where_it_is(site: Site, visit: Visit) -> None:
    site.client.submit(["sh", "-c", _LINES], id="following-lines", queue="story")
    page, log = visit()
    page.goto(site.login_address)
    page.goto(f"{site.address}/tasks/following-lines")
    output = page.locator("#output pre")
    page.wait_for_function("() => document.querySelector('#output pre')?.scrollHeight > 1000")
    output.evaluate("element => { element.scrollTop = 100; }")
    wait_for_new_lines(page)
    assert output.evaluate(_TOP) == 100
    output.evaluate("element => { element.scrollTop = element.scrollHeight; }")
    wait_for_new_lines(page)
    left = output.evaluate("element => element.scrollHeight - element.clientHeight - element.scrollTop")
    assert left <= 2, "the newest line is not in sight"
    site.client.stop("following-lines", by="the test")
    log.assert_clean(site.address)


def test_what_is_the_same_stays_the_same_element(site: Site, visit: Visit) -> None:
    """A screen reader that reads there is not sent back to the beginning, and a press is not lost."""
    site.client.submit(["sh", "-c", _LINES], id="following-elements", queue="story")
    page, log = visit()
    page.goto(site.login_address)
    page.goto(f"{site.address}/tasks/following-elements")
    page.wait_for_function("() => document.querySelectorAll('.phases tr').length > 5")
    marks = "['#actions summary', '#details dd', '.phases th', '#output pre'].map((of) => document.querySelector(of))"
    page.evaluate(f"{marks}.forEach((element) => {{ element.isMarked = true; }})")
    once = page.locator("#actions input[name=once]").get_attribute("value")
    wait_for_new_lines(page)
    page.wait_for_function("once => document.querySelector('#actions input[name=once]').value !== once", arg=once)
    assert page.evaluate(f"{marks}.map((element) => element.isMarked)") == [True] * 4
    site.client.stop("following-elements", by="the test")
    expect(page.locator("#follow")).to_contain_text("The request has ended")
    expect(page.locator("#actions")).not_to_contain_text("Stop now")
    log.assert_clean(site.address)


@pytest.mark.parametrize("path", ["/tasks/following-log-in", "/journal"])
@pytest.mark.parametrize("status", [303, 401, 403])
def test_a_page_says_that_it_is_logged_out(path: str, status: int, site: Site, visit: Visit) -> None:
    site.client.submit(["true"], id="following-log-in", queue="no-worker-serves-it")
    page, _ = visit()
    page.goto(f"{site.address}{path}")

    def answer(route: Route) -> None:
        route.fulfill(status=status, headers={"location": "/login"})

    page.route("**/journal/events*", answer)
    page.route("**/tasks/following-log-in", answer)
    if path == "/journal":
        page.reload()
    expect(page.get_by_role("status")).to_have_text(
        "You are no longer logged in, or may not see this any more: load the page again."
    )
