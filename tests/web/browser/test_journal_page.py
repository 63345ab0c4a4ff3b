"""The journal's live events: they come, they come again after the server was away, and a hidden tab asks for none."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from ecs_queue.client.client import EcsQueue
from tests.web.browser.conftest import Site, Visit, run_web

LIVE = "Live: new events appear at the top."
#: Connections of a browser to one server, and so the number of tabs after which nothing would load any more.
CONNECTIONS = 6


def make_event(client: EcsQueue) -> str:
    """Write events to the journal; return the id of their request."""
    request_id = f"live-{uuid.uuid4().hex[:8]}"
    client.submit(["true"], id=request_id, queue="idle")
    return request_id


def hide(page: Page, hidden: bool) -> None:
    """Do as a browser does when the tab is hidden or shown: a page of Playwright's is always shown."""
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_events_appear_at_the_top_as_they_are_written(site: Site, visit: Visit) -> None:
    page, log = visit()
    page.goto(f"{site.address}/journal")
    expect(page.get_by_text(LIVE)).to_be_visible()
    first = make_event(site.client)
    expect(page.get_by_role("link", name=first).first).to_be_visible()
    second = make_event(site.client)
    expect(page.get_by_role("link", name=second).first).to_be_visible()
    ids = page.locator("#events a").all_inner_texts()
    assert ids.index(second) < ids.index(first)
    page.get_by_role("link", name=second).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(second)
    page.go_back()
    expect(page.get_by_text(LIVE)).to_be_visible()
    third = make_event(site.client)
    expect(page.get_by_role("link", name=third).first).to_be_visible()
    page.reload()
    expect(page.get_by_text(LIVE)).to_be_visible()
    assert third in page.locator("#events a").all_inner_texts()
    log.assert_clean(site.address)


def test_after_a_restart_of_the_server_no_event_is_missing_or_doubled(site: Site, visit: Visit) -> None:
    page, _ = visit()
    with run_web(site.environ, "--port", "0", "--allow-changes") as address:
        page.goto(address)
        other = page.context.new_page()
        other.goto(f"{address.partition('/login')[0]}/journal")
        expect(other.get_by_text(LIVE)).to_be_visible()
        seen = make_event(site.client)
        expect(other.get_by_role("link", name=seen).first).to_be_visible()
    expect(other.get_by_text("The connection is interrupted")).to_be_visible()
    missed = make_event(site.client)
    with run_web(site.environ, "--port", str(urlsplit(address).port), "--allow-changes"):
        expect(other.get_by_text(LIVE)).to_be_visible()
        expect(other.get_by_role("link", name=missed).first).to_be_visible()
        for request_id in (seen, missed):
            assert other.get_by_role("row", name=re.compile(f" request.submitted {request_id} ")).count() == 1
        # The buttons of a page from before the restart: the token is another one now.
        page.get_by_role("row", name=re.compile("^idle ")).get_by_text("Pause", exact=True).click()
        page.get_by_role("button", name="Pause now").click()
        expect(page.get_by_role("heading", name="Nothing was changed")).to_be_visible()
        page.get_by_role("main").get_by_role("link", name="Log in").click()
        expect(page.get_by_label("Token")).to_be_visible()
    assert "idle" not in site.client.paused_queues()


@pytest.mark.parametrize("status", [200, 502, 503])
def test_an_answer_that_is_no_stream_is_asked_for_again(status: int, site: Site, visit: Visit) -> None:
    page, _ = visit()
    answers: Iterator[str] = iter(["a proxy's own page", 'event: problem\ndata: "no journal"\n\n'])

    def answer(route: Route) -> None:
        if route.request.method == "HEAD":  # the page asks whether it is logged out
            route.fulfill(status=status)
            return
        body = next(answers, None)
        if body is None:
            route.continue_()
        elif body.startswith("event"):
            route.fulfill(content_type="text/event-stream", body=body)
        else:
            route.fulfill(status=status, content_type="text/html", body=body)

    page.route("**/journal/events*", answer)
    page.clock.install()
    page.goto(f"{site.address}/journal")
    expect(page.get_by_text("The connection is interrupted")).to_be_visible()
    page.clock.run_for(5000)
    expect(page.get_by_text("no journal")).to_be_visible()
    page.clock.run_for(5000)
    expect(page.get_by_text(LIVE)).to_be_visible()


def test_a_stream_that_the_server_ends_goes_on_without_a_word(site: Site, visit: Visit) -> None:
    page, log = visit()
    page.route(
        "**/journal/events*",
        lambda route: route.fulfill(content_type="text/event-stream", body="retry: 100\n\n"),
        times=2,
    )
    page.add_init_script(
        """addEventListener("DOMContentLoaded", () => {
          window.said = [];
          new MutationObserver(() => window.said.push(document.getElementById("live").textContent))
            .observe(document.getElementById("live"), {childList: true});
        })"""
    )
    page.goto(f"{site.address}/journal")
    event = make_event(site.client)
    expect(page.get_by_role("link", name=event).first).to_be_visible()
    assert page.evaluate("window.said") == [LIVE]
    log.assert_clean(site.address)


def test_what_stands_between_backticks_is_code_in_new_events_too(site: Site, visit: Visit) -> None:
    page, log = visit()
    row = ["2026-07-03 12:00:00.000", "request.ended", "new-one", "worker-1", "reason=see `ecs-queue <dead>`, not `"]
    event = f"id: 1-0.0\ndata: {json.dumps(row)}\n\n"
    problem = 'event: problem\ndata: "see `ecs-queue acl`"\n\n'
    page.route(
        "**/journal/events*",
        lambda route: route.fulfill(content_type="text/event-stream", body=event + problem),
    )
    page.goto(f"{site.address}/journal")
    cell = page.get_by_role("row", name="new-one").get_by_role("cell").last
    expect(cell).to_have_text("reason=see ecs-queue <dead>, not `")
    expect(cell.get_by_role("code")).to_have_text("ecs-queue <dead>")
    expect(page.locator("#live").get_by_role("code")).to_have_text("ecs-queue acl")
    log.assert_clean(site.address)


def test_the_events_stand_still_while_the_page_is_paused(site: Site, visit: Visit) -> None:
    page, log = visit()
    page.goto(f"{site.address}/journal")
    expect(page.get_by_text(LIVE)).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused: nothing moves.")).to_be_visible()
    missed = make_event(site.client)
    reader = page.context.new_page()
    reader.goto(f"{site.address}/journal")
    expect(reader.get_by_role("link", name=missed).first).to_be_visible()  # the journal has it by now
    assert page.get_by_role("link", name=missed).count() == 0
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("link", name=missed).first).to_be_visible()
    expect(page.get_by_text(LIVE)).to_be_visible()
    log.assert_clean(site.address)


def test_more_tabs_than_connections_do_not_stop_the_browser(site: Site, visit: Visit) -> None:
    first, _ = visit()
    pages = [first, *(first.context.new_page() for _ in range(CONNECTIONS))]
    for page in pages:
        page.goto(f"{site.address}/journal")
        expect(page.get_by_text(LIVE)).to_be_visible()
        if page is not pages[-1]:
            hide(page, True)
    missed = make_event(site.client)
    expect(pages[-1].get_by_role("link", name=missed).first).to_be_visible()
    hide(pages[-1], True)
    assert first.get_by_role("link", name=missed).count() == 0
    hide(first, False)
    expect(first.get_by_role("link", name=missed).first).to_be_visible()
