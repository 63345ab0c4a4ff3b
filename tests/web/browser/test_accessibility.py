"""axe-core's judgement of each page, in both schemes and at two widths, and what axe-core does not judge."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.web.browser.conftest import PAGES, Site, Visit

#: The narrowest that WCAG 2.2 wants pages to reflow to (1.4.10), and a desktop's.
SIZES = {"phone": {"width": 320, "height": 740}, "desktop": {"width": 1280, "height": 960}}
SCHEMES = ("light", "dark")


def faults(page: Page) -> list[str]:
    """What axe-core, which is in the page, finds, each with the elements."""
    found: list[dict[str, Any]] = page.evaluate("axe.run({resultTypes: ['violations']}).then((all) => all.violations)")
    return [
        f"{rule['impact']}: {rule['help']}: {node['html'][:200]} ({node['any'] and node['any'][0]['message']})"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.usefixtures("contents")
@pytest.mark.parametrize("path", ["/", "/tasks", "/dead", "/journal"])
def test_on_a_desktop_no_table_hides_a_column(path: str, site: Site, visit: Visit) -> None:
    page, _ = visit(viewport=SIZES["desktop"])
    page.goto(site.login_address)
    page.goto(site.address + path)
    tables = "document.querySelectorAll('.table:not(details .table)')"
    assert page.evaluate(f"{tables}.length") > 0
    assert page.evaluate(f"[...{tables}].map((table) => table.scrollWidth - table.clientWidth).filter(Boolean)") == []


@pytest.mark.usefixtures("contents")
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_fault_and_nothing_scrolls_sideways(name: str, site: Site, visit: Visit) -> None:
    path, logged_in = PAGES[name]
    page, _ = visit()
    if logged_in:
        page.goto(site.login_address)
    page.goto(site.address + path)
    page.evaluate(Axe().axe_script)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for size in SIZES.values():
        page.set_viewport_size({"width": size["width"], "height": size["height"]})
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        for scheme in SCHEMES:
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            assert faults(page) == [], f"{size['width']} px, {scheme}"
