"""What the pages show of a queue in memory."""

from __future__ import annotations

from dataclasses import replace

from starlette.testclient import TestClient

from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.testing import Exit, MemoryQueue
from ecs_queue.web.access import Access
from ecs_queue.web.app import WebApp
from ecs_queue.web.reading import PAGE_SIZE
from tests.web.conftest import TOKEN, Site


def test_the_overview_names_problems_before_queues(site: Site) -> None:
    site.queue.submit(["true"], queue="etl")
    text = site.browser.get("/").text
    assert text.index("no worker serves this queue") < text.index("<h2>Queues")
    assert "etl" in text


def test_a_paused_queue_is_shown_as_paused(site: Site) -> None:
    site.queue.pause("etl")
    assert "PAUSED" in site.browser.get("/").text
    site.queue.resume("etl")
    assert "PAUSED" not in site.browser.get("/").text


def test_the_tasks_are_filtered_and_paged(site: Site) -> None:
    site.queue.submit_many([{"command": ["true"], "id": f"request-{number:03}"} for number in range(PAGE_SIZE + 5)])
    site.queue.submit(["true"], id="elsewhere", queue="etl")
    first = site.browser.get("/tasks").text
    assert first.count('class="id"') == PAGE_SIZE
    following = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert site.browser.get(following).text.count('class="id"') == 6
    only = site.browser.get("/tasks?queue=etl&state=queued").text
    assert "elsewhere" in only
    assert "request-0" not in only
    assert "No such requests" in site.browser.get("/tasks?state=FAILED").text


def test_a_failed_request_is_shown_with_its_reason_and_attempt(site: Site) -> None:
    with MemoryQueue(lambda _: Exit(3)) as queue:
        queue.submit(["false"], id="fails").result()
        app = WebApp(queue, queue._broker, Access(token=TOKEN), make_presentation(), make_commands()).build()
        text = TestClient(app, base_url="http://localhost").get("/tasks/fails").text
    assert "FAILED" in text
    assert "Attempt 1" in text
    assert "exit code 3" in text


def test_html_in_a_reason_is_shown_as_text(site: Site) -> None:
    site.queue.submit(["true"], id="stopped")
    site.queue.stop("stopped", by="<script>alert(1)</script>")
    for path in ("/tasks", "/tasks/stopped"):
        text = site.browser.get(path).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_the_command_is_on_no_page(site: Site) -> None:
    site.queue.submit(["echo", "swordfish"], id="secret", environment={"NAME": "swordfish"})
    for path in ("/", "/tasks", "/tasks/secret", "/dead", "/journal"):
        assert "swordfish" not in site.browser.get(path).text


def test_container_output_needs_the_log_in(site: Site) -> None:
    presentation = replace(make_presentation(), last_lines=lambda _client, _record, _limit: ["swordfish"])
    site.queue.submit(["true"], id="one")
    app = WebApp(site.queue, site.queue._broker, Access(token=TOKEN), presentation, make_commands()).build()
    browser = TestClient(app, base_url="http://localhost")
    assert "swordfish" not in browser.get("/tasks/one").text
    browser.get(f"/login?token={TOKEN}")
    assert "swordfish" in browser.get("/tasks/one").text


def test_an_unknown_request_is_not_found(site: Site) -> None:
    answer = site.browser.get("/find?id=nothing")
    assert answer.status_code == 404
    assert "nothing" in answer.text


def test_a_page_that_there_is_not_is_not_found(site: Site) -> None:
    assert site.browser.get("/nowhere").status_code == 404
