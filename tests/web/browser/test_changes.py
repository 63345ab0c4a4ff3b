"""What the buttons of the page do when they are pressed twice, and beside the page of another namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.web.browser.conftest import Site, Visit, make_failing_request, run_web


@pytest.mark.parametrize("scripts", [True, False])
def test_a_second_press_replays_nothing_again(scripts: bool, site: Site, visit: Visit, tmp_path: Path) -> None:
    failed = make_failing_request(site, f"twice_{scripts}".lower(), tmp_path / "orders.csv")
    page, log = visit(java_script_enabled=scripts)
    page.goto(site.login_address)
    page.goto(f"{site.address}/tasks/{failed}")
    page.get_by_text("Replay", exact=True).click()

    def obey_before_the_answer(route: Route) -> None:
        route.fetch(max_redirects=0)
        if scripts:  # otherwise the second press takes the place of the first
            route.continue_()

    page.route("**/replay", obey_before_the_answer, times=1)
    page.get_by_role("button", name="Replay now").focus()
    with page.expect_request("**/replay"):
        page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/tasks/{failed}-r-[0-9a-f]{{8}}$"))
    assert sum(url.endswith("/replay") for url in log.urls) == (1 if scripts else 2)
    replays = [record.id for record in site.client.tasks() if record.id.startswith(f"{failed}-r-")]
    assert replays == [page.url.rpartition("/")[2]]


def test_who_goes_back_may_replay_once_more(site: Site, visit: Visit, tmp_path: Path) -> None:
    failed = make_failing_request(site, "again", tmp_path / "orders.csv")
    page, log = visit()
    page.goto(site.login_address)
    page.goto(f"{site.address}/tasks/{failed}")
    seen = set()
    for _ in range(2):
        page.get_by_text("Replay", exact=True).click()
        page.get_by_role("button", name="Replay now").click()
        expect(page).to_have_url(re.compile(f"/tasks/{failed}-r-[0-9a-f]{{8}}$"))
        seen.add(page.url)
        page.go_back()
        expect(page).to_have_url(f"{site.address}/tasks/{failed}")
    assert len(seen) == 2
    log.assert_clean(site.address)


def test_a_press_on_stop_ends_what_waits_and_the_page_shows_it(site: Site, visit: Visit) -> None:
    site.client.pause("held")
    site.client.submit(["true"], queue="held", id="held-back")
    page, log = visit()
    page.goto(site.login_address)
    page.goto(f"{site.address}/tasks/held-back")
    expect(page.get_by_text("This page follows the request: QUEUED.")).to_be_visible()
    # Another one looks on; nothing is replaced under the hands of a person who is about to press.
    other = page.context.new_page()
    other.goto(page.url)
    stop = "summary:has-text('Stop')"
    other.locator(stop).click()
    page.locator(stop).click()
    page.get_by_role("button", name="Stop now").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("REVOKED")
    expect(other.get_by_role("heading", level=1)).to_contain_text("REVOKED")
    expect(other.get_by_text("The request has ended: REVOKED.")).to_be_visible()
    expect(other.get_by_role("button", name="Stop now")).to_be_visible()
    other.locator(stop).click()
    other.get_by_role("heading", level=1).click()
    expect(other.locator(stop)).to_be_hidden()
    site.client.resume("held")
    log.assert_clean(site.address)


def test_a_log_in_on_another_port_does_not_end_this_one(site: Site, visit: Visit) -> None:
    page, _ = visit()
    page.goto(site.login_address)
    with run_web(site.environ, "--port", "0") as other_address:
        page.goto(other_address)
        expect(page.get_by_text("Logged in.")).to_be_visible()
        page.goto(site.address)
        expect(page.get_by_text("Logged in.")).to_be_visible()
