"""Headless Chromium for tests: Debian's browser, driven by Playwright, which downloads none of its own.

A package with browser tests has a fixture of its own scope, as Playwright keeps an event loop in the thread that
started it, so that no test there can call `asyncio.run` until the browser is closed::

    @pytest.fixture(scope="package")
    def chromium() -> Iterator[Browser]:
        with run_chromium() as browser:
            yield browser
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, expect, sync_playwright

from tests.servers import skip_or_fail

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
#: A name that leads to this machine, as a DNS server of someone else could make it do.
OTHER_NAME = "other.example"
#: The browser reaches this machine and nothing else.
_NAMES = f"MAP {OTHER_NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
_MILLISECONDS = 20_000
_REPORT_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
  reportViolation(`${event.effectiveDirective} refused ${event.blockedURI} on ${location.pathname}`))"""


@dataclass
class BrowserLog:
    """What a browser said about the pages of one context, in the order in which it happened.

    Attributes:
        messages: Errors and warnings of the console, and exceptions that no script caught.
        violations: What a page's Content-Security-Policy refused.
        urls: What was requested.
    """

    messages: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    @property
    def origins(self) -> set[str]:
        """Of everything that was requested."""
        return {f"{url.scheme}://{url.netloc}" for url in map(urlsplit, self.urls)}

    def assert_clean(self, origin: str) -> None:
        """Assert that the browser complained of nothing, and asked only the server `origin`, such as http://127.0.0.1:1."""
        assert not self.messages, self.messages
        assert not self.violations, self.violations
        assert self.origins <= {origin}, self.origins


@contextmanager
def run_chromium() -> Iterator[Browser]:
    """A browser; the test ends without one: fails with CI set, otherwise skips."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        skip_or_fail("chromium", "apt-get install chromium")
    expect.set_options(timeout=_MILLISECONDS)
    with sync_playwright() as playwright:
        arguments = [f"--host-resolver-rules={_NAMES}"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=_MILLISECONDS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, **options: Any) -> Iterator[tuple[Page, BrowserLog]]:
    """A page of a profile of its own, without cookies, and what the browser says about it.

    Args:
        browser: Runs it.
        options: Of Playwright's `Browser.new_context`.
    """
    with browser.new_context(**options) as context:
        context.set_default_timeout(_MILLISECONDS)
        yield context.new_page(), _listen(context)


def _listen(context: BrowserContext) -> BrowserLog:
    log = BrowserLog()

    def on_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            log.messages.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def on_error(error: WebError) -> None:
        log.messages.append(f"exception: {error.error}")

    context.on("console", on_message)
    context.on("weberror", on_error)
    context.on("request", lambda request: log.urls.append(request.url))
    # not list.append itself, on which Playwright cannot set its mark
    context.expose_function("reportViolation", lambda text: log.violations.append(text))
    context.add_init_script(_REPORT_VIOLATIONS)
    return log
