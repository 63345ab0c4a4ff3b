"""A person at the keyboard: keys only, and the focus that they see."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page

from tests.wait import wait_until

#: More stops than any page of the tests has.
_MAX_STOPS = 120
#: The focused element: a short name, and whether a person sees that it has the focus.
_FOCUS = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const inside = box.width > 1 && box.height > 1 && box.bottom > 0 && box.right > 0
    && box.top < innerHeight && box.left < innerWidth;
  return {name: `${element.localName} ${element.textContent.trim().slice(0, 40)}`, visible: ring && inside};
}"""


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus; every stop on the way must be visible."""
    for _ in range(_MAX_STOPS):
        page.keyboard.press("Tab")
        assert_focus_is_visible(page)
        if target.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"{target} did not get the focus by {_MAX_STOPS} times Tab")


def press_enter_on(page: Page, target: Locator) -> None:
    """Go there with Tab, and press Enter."""
    tab_to(page, target)
    page.keyboard.press("Enter")


def follow(page: Page, link: Locator) -> None:
    """Press Enter on a link, and wait for its page."""
    with page.expect_navigation():
        press_enter_on(page, link)


def assert_focus_is_visible(page: Page) -> str | None:
    """Return a name of the focused element, None for the document itself; the browser may still be scrolling to it."""
    seen: list[Any] = []

    def is_visible() -> bool:
        seen.append(page.evaluate(_FOCUS))
        return seen[-1] is None or bool(seen[-1]["visible"])

    wait_until(is_visible, "a person sees what has the focus", seconds=5.0)
    return seen[-1] and str(seen[-1]["name"])


def stops(page: Page) -> list[str]:
    """The stops of Tab from the beginning of the document until it leaves the document."""
    found: list[str] = []
    for _ in range(_MAX_STOPS):
        page.keyboard.press("Tab")
        name = assert_focus_is_visible(page)
        if name is None:
            return found
        found.append(name)
    raise AssertionError(f"the focus did not leave the document: {found[-5:]}")


def stops_back(page: Page, count: int) -> list[str]:
    """The next stops of Shift+Tab."""
    found: list[str] = []
    for _ in range(count):
        page.keyboard.press("Shift+Tab")
        found.append(assert_focus_is_visible(page) or "the document")
    return found
