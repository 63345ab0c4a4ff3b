"""From the overview to a failed request, its reason and output, and its replay that succeeds: in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.web.browser.conftest import Site, Visit, make_failing_request


def test_a_failed_request_is_found_understood_and_replayed(site: Site, visit: Visit, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    failed = make_failing_request(site, "story", file)
    page, log = visit()
    page.goto(site.login_address)
    expect(page).to_have_url(f"{site.address}/")
    expect(page.get_by_text("Logged in.")).to_be_visible()

    row = page.get_by_role("row", name=re.compile("^story "))
    expect(row).to_contain_text("ACTIVE")
    row.get_by_role("link", name="1", exact=True).click()
    expect(page).to_have_url(f"{site.address}/tasks?queue=story&state=FAILED")
    page.get_by_role("link", name=failed).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(f"{failed}\\s+FAILED"))
    expect(page.locator(".notice", has_text="Reason")).to_contain_text("exit 3")
    expect(page.get_by_label("Last lines")).to_have_text("looking for orders\nthere are no orders yet")
    shares = page.locator(".phases meter").evaluate_all("(all) => all.map((meter) => meter.value / meter.max)")
    assert sum(shares) == pytest.approx(1.0)

    file.touch()
    page.get_by_text("Replay", exact=True).click()
    page.get_by_role("button", name="Replay now").click()
    expect(page).to_have_url(re.compile(f"/tasks/{failed}-r-[0-9a-f]{{8}}$"))
    replayed = page.url.rpartition("/")[2]
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(f"{replayed}\\s+SUCCESS"))
    expect(page.get_by_label("Last lines")).to_have_text("looking for orders")
    page.get_by_role("definition").get_by_role("link", name=failed, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(f"{failed}\\s+FAILED"))
    log.assert_clean(site.address)


def test_what_was_sent_for_a_request_is_compared_with_a_launch_now(site: Site, visit: Visit, tmp_path: Path) -> None:
    failed = make_failing_request(site, "sent", tmp_path / "none")
    page, log = visit()
    page.goto(site.login_address)
    page.goto(f"{site.address}/tasks/{failed}")
    page.get_by_role("link", name="Compare what was sent with a launch now").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Arguments then and now")
    # The page has another target than the worker, whose Region its own environment sets, or the same one.
    expect(page.get_by_role("main")).to_contain_text(re.compile("sent then: launch 1 at|The same would be sent now"))
    log.assert_clean(site.address)
