"""Everything by keyboard alone: Tab, Shift+Tab, Enter, and letters in fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.web.browser.conftest import Site, Visit, make_failing_request
from tests.web.browser.keyboard import follow, press_enter_on, stops, stops_back, tab_to


def test_a_failed_request_is_replayed_with_the_keyboard_alone(site: Site, visit: Visit, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    failed = make_failing_request(site, "keyboard", file)
    page, log = visit()
    page.goto(f"{site.address}/login")
    tab_to(page, page.get_by_label("Token"))
    page.keyboard.insert_text(site.login_address.partition("token=")[2])
    page.keyboard.press("Enter")
    expect(page.get_by_text("Logged in.")).to_be_visible()

    row = page.get_by_role("row", name=re.compile("^keyboard "))
    follow(page, row.get_by_role("link", name="1", exact=True))
    follow(page, page.get_by_role("link", name=failed))
    expect(page.locator(".notice", has_text="Reason")).to_contain_text("exit 3")

    file.touch()
    confirm = page.get_by_role("button", name="Replay now")
    press_enter_on(page, page.locator("summary", has_text="Replay"))
    expect(confirm).to_be_visible()
    expect(confirm).not_to_be_focused()  # a second Enter does not confirm
    page.keyboard.press("Tab")
    expect(confirm).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/tasks/{failed}-r-[0-9a-f]{{8}}$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("SUCCESS")
    log.assert_clean(site.address)


def test_the_first_stop_leads_past_the_navigation(site: Site, visit: Visit) -> None:
    page, _ = visit()
    page.goto(site.address)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.address}/#main")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


@pytest.mark.parametrize("path", ["/", "/tasks", "/dead", "/journal", "/login", "/tasks/unknown"])
def test_the_focus_goes_around_the_page_in_both_directions(path: str, site: Site, visit: Visit) -> None:
    page, _ = visit()
    page.goto(site.login_address)
    page.route("**/journal/events*", lambda route: route.abort())  # no row comes meanwhile
    page.goto(site.address + path)
    forward = stops(page)
    assert forward[0] == "a Skip to the content"
    assert len(forward) >= 8
    assert stops_back(page, len(forward)) == forward[::-1]
