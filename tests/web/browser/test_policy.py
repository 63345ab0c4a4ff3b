"""The pages ask only their own server, and the browser complains of nothing; and what it would complain of."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.web.browser.conftest import PAGES, Site, Visit
from tests.web.browser.other_site import serve_pages

#: Element -> the attribute with its address, and what the policy calls it.
ELEMENTS = {
    "script": ("src", "script-src-elem"),
    "img": ("src", "img-src"),
    "link": ("href", "style-src-elem"),
    "iframe": ("src", "frame-src"),
    "audio": ("src", "media-src"),
}


@pytest.mark.usefixtures("contents")
@pytest.mark.parametrize("logged_in", [True, False])
def test_the_pages_ask_only_their_own_server_and_break_no_policy(logged_in: bool, site: Site, visit: Visit) -> None:
    page, log = visit()
    if logged_in:
        page.goto(site.login_address)
    for path in sorted({path for path, needs_login in PAGES.values() if logged_in or not needs_login}):
        expected = {"/tasks/unknown": 404, "/login?token=wrong": 403}.get(path, 200)
        answer = page.goto(site.address + path)
        assert answer is not None
        assert answer.status == expected
        expect(page.get_by_role("heading", level=1)).to_be_visible()
    # The browser notes an answer that is an error, and nothing else.
    log.messages = [text for text in log.messages if "the server responded with a status of 40" not in text]
    log.assert_clean(site.address)


@pytest.mark.parametrize("element", ELEMENTS)
def test_what_a_page_of_another_origin_would_add_is_refused(element: str, site: Site, visit: Visit) -> None:
    attribute, directive = ELEMENTS[element]
    page, log = visit()
    page.goto(site.address)
    with serve_pages({"/": "<!doctype html><title>x</title>"}) as other:
        refused = page.evaluate(
            """([name, attribute, address]) => new Promise((resolve) => {
              addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
              const element = document.createElement(name);
              if (name === "link") element.rel = "stylesheet";
              element[attribute] = address;
              document.body.append(element);
            })""",
            [element, attribute, f"http://127.0.0.1:{other.port}/"],
        )
    assert refused == directive
    assert other.asked == []
    with pytest.raises(AssertionError):
        log.assert_clean(site.address)


def test_a_script_within_the_page_is_refused(site: Site, visit: Visit) -> None:
    page, _ = visit()
    page.goto(site.address)
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'changed'";
          document.body.append(script);
          document.body.setAttribute("style", "display: none");
        }"""
    )
    expect(page).to_have_title("Overview · ecs-queue")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
