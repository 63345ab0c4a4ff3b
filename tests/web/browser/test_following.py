"""The page of a request that runs: what a person has scrolled stays there, and the newest lines stay in sight."""

from __future__ import annotations

from playwright.sync_api import Page

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
