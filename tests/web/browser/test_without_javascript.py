"""The pages in a browser that runs no script."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from ecs_queue.ledger.entries import DeadLetter, dead_letter_key
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from tests.web.browser.conftest import Site, Visit, make_failing_request


def test_a_failed_request_is_found_and_replayed_without_javascript(site: Site, visit: Visit, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    failed = make_failing_request(site, "plain", file)
    page, _ = visit(java_script_enabled=False)
    page.goto(site.login_address)
    row = page.get_by_role("row", name=re.compile("^plain "))
    row.get_by_role("link", name="1", exact=True).click()
    page.get_by_role("link", name=failed).click()
    file.touch()
    page.get_by_text("Replay", exact=True).click()
    page.get_by_role("button", name="Replay now").click()
    expect(page).to_have_url(re.compile(f"/tasks/{failed}-r-[0-9a-f]{{8}}$"))
    replayed = page.url.rpartition("/")[2]
    assert site.client.handle(replayed).result(timeout=60).state == "SUCCESS"
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("SUCCESS")


def test_a_second_press_on_requeue_leads_to_the_request_without_javascript(site: Site, visit: Visit) -> None:
    request = new_request(id="plain-late", command=["true"], queue="plain", now=1.7e9, accept_seconds=60.0)
    letter = DeadLetter(
        key=dead_letter_key("plain", "1"), queue="plain", reason="it was late", body=envelope.encode(request)
    )
    site.client.ledger.add_dead_letter(letter)
    first, _ = visit(java_script_enabled=False)
    first.goto(site.login_address)
    page = first.context.new_page()  # to the server its press is a second one of the same form
    for each in (first, page):
        each.goto(f"{site.address}/dead")
    for each in (first, page):
        row = each.get_by_role("row", name="plain-late")
        row.get_by_text("Requeue", exact=True).click()
        row.get_by_role("button", name="Requeue now").click()
    expect(first).to_have_url(re.compile("/tasks/plain-late-r-[0-9a-f]{8}$"))
    expect(page.get_by_role("heading", name="Already requeued")).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="Request plain-late-r-").click()
    expect(page).to_have_url(re.compile("/tasks/plain-late-r-[0-9a-f]{8}$"))


def test_the_journal_says_that_live_events_need_javascript(site: Site, visit: Visit) -> None:
    page, _ = visit(java_script_enabled=False)
    page.goto(f"{site.address}/journal")
    expect(page.get_by_text("Live updates need JavaScript.")).to_be_visible()
