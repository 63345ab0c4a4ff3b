"""What the pages show of a queue in memory."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.errors import MissingRight, UnknownTask
from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.monitoring.catalogue import MAX_QUEUES
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.testing import Exit, MemoryQueue
from ecs_queue.web.access import Access
from ecs_queue.web.app import WebApp
from ecs_queue.web.reading import PAGE_SIZE
from tests.web.conftest import TOKEN, Site, open_site


def worker_info(name: str, **facts: Any) -> WorkerInfo:
    """Return the heartbeat of a worker of the queue etl that makes 6 of 20 calls a second."""
    known: dict[str, Any] = {
        "name": name,
        "host": "h",
        "pid": 1,
        "version": "0.1.0",
        "queues": ["etl"],
        "concurrency": 4,
        "launches_in_progress": 1,
        "launched_total": 12,
        "ended_total": 9,
        "health": "ok",
        "started_at": 1.0,
        "start_call_rate": 6.0,
        "start_call_limit": 20.0,
        "read_call_rate": 0.25,
    }
    return WorkerInfo(**(known | facts))


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


def queue_rows(site: Site) -> dict[str, str]:
    """The cells of the overview's queues by name, in their order."""
    table = site.browser.get("/").text.partition('aria-label="Queues"')[2].partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row"><a [^>]*>([^<]+)</a></th>(.*?)</tr>', table, re.DOTALL)
    return dict(rows)


def test_the_queues_are_in_the_order_of_their_names(site: Site) -> None:
    for name in ("reports", "etl", "zip", "adhoc"):
        site.queue.submit(["true"], queue=name)
    site.queue.pause("adhoc")
    assert list(queue_rows(site)) == ["adhoc", "default", "etl", "reports", "zip"]


def test_a_queue_that_no_worker_serves_is_not_called_active(site: Site) -> None:
    site.queue.submit(["true"], queue="etl")
    assert "NO WORKER" in queue_rows(site)["etl"]
    site.queue.ledger.heartbeat(worker_info("one"), 60)
    assert "ACTIVE" in queue_rows(site)["etl"]


def test_a_queue_names_the_requests_that_its_backlog_leaves_out() -> None:
    with MemoryQueue() as queue:
        site = open_site(queue)
        queue.submit(["true"], queue="etl", id="delayed", delay=60)
        assert "waiting for a key" not in queue_rows(site)["etl"]
        claim = ClaimRequest(claim="c", worker="w", args="{}", target="t", key_limit=1)
        for name in ("first", "second", "third"):
            queue.submit(["true"], queue="etl", id=name, concurrency_key="customer")
            queue.ledger.claim(name, claim)
        row = queue_rows(site)["etl"]
    assert "2 waiting for a key" in row
    assert "1 delayed" in row


def test_queues_that_are_not_listed_are_counted(site: Site) -> None:
    site.queue.ledger.pause_queues([f"queue-{number:04}" for number in range(MAX_QUEUES + 1)])
    text = site.browser.get("/").text
    assert len(queue_rows(site)) == MAX_QUEUES
    assert "2 more queues are not listed" in text  # default is listed


def test_the_reason_of_a_success_is_no_warning() -> None:
    with MemoryQueue() as queue:
        queue.submit(["true"], id="done").result()
        assert '<div class="notice ok"><strong>Reason</strong>' in open_site(queue).browser.get("/tasks/done").text


def test_the_overview_shows_rates_quota_use_and_dead_letters() -> None:
    with MemoryQueue() as queue:
        site = open_site(queue)
        queue.submit(["true"], queue="etl")
        for name, rate, waiting in (("one", 2.5, 0), ("two", 0.5, 1200)):
            rates = {"launch_rates": {"etl": rate}, "end_rates": {"etl": 0.25}}
            queue.ledger.heartbeat(worker_info(name, launches_waiting=waiting, **rates), 60)
        for number in range(1200):
            letter = DeadLetter(key=f"etl.{number}", queue="etl", reason="it is not JSON", body=b"{")
            queue.ledger.add_dead_letter(letter)
        text = site.browser.get("/").text
    assert '<td class="number">3/s</td><td class="number">0.5/s</td>' in text
    assert text.count("1 of 4") == 2
    assert text.count('1 of 4<div class="muted">1,200 waiting</div>') == 1
    assert "<dt>Launches</dt><dd>3/s</dd>" in text
    assert "<dt>Ends</dt><dd>0.5/s</dd>" in text
    assert '<a href="/dead">1,200</a>' in text
    assert "<span>RunTask and StopTask</span>" in text
    assert "<span>12/s of 20/s</span>" in text
    assert "<span>0.5/s, no limit</span>" in text
    assert "Fargate Spot" not in text


def test_a_user_who_may_not_count_dead_letters_sees_the_rest(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise MissingRight("the ledger denies ZCARD")

    monkeypatch.setattr(site.queue.ledger, "total_dead_letters", refuse)
    answer = site.browser.get("/")
    assert answer.status_code == 200
    assert "<dt>Dead letters</dt><dd>–</dd>" in answer.text


def test_without_a_journal_the_overview_says_so(site: Site) -> None:
    assert "a ledger in memory has no journal" in site.browser.get("/").text


def test_runners_are_counted_by_what_they_do_and_listed_by_queue() -> None:
    with MemoryQueue() as queue:
        site = open_site(queue)
        for queue_name, number in (("etl", PAGE_SIZE + 1), ("reports", 2)):
            for n in range(number):
                queue.submit(["true"], queue=queue_name, id=f"{queue_name}-{n:02}")
                pool = f"{queue_name}.0123456789abcdef"
                claim = ClaimRequest(claim="c", worker="w", args="{}", target="t", pool=pool, payload="secret")
                assert queue.ledger.claim(f"{queue_name}-{n:02}", claim).record is not None
        text = site.browser.get("/").text
        assert f'<a href="/runners?queue=etl">{PAGE_SIZE + 1} starting</a>' in text
        assert '<a href="/runners?queue=reports">2 starting</a>' in text
        first = site.browser.get("/runners?queue=etl").text
        assert first.count('<span class="state starting">') == PAGE_SIZE
        assert "reports" not in first
        following = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
        rest = site.browser.get(following).text
        assert rest.count('<span class="state starting">') == 1
        assert 'rel="next"' not in rest
        for spelling in ("reports", "Reports"):
            assert '<a class="id" href="/tasks/reports-01">' in site.browser.get(f"/runners?queue={spelling}").text
        assert "There is none" in site.browser.get("/runners?queue=other").text


def test_the_tasks_are_filtered_and_paged(site: Site) -> None:
    site.queue.submit_many([{"command": ["true"], "id": f"request-{number:03}"} for number in range(PAGE_SIZE + 5)])
    site.queue.submit(["true"], id="elsewhere", queue="etl")
    first = site.browser.get("/tasks").text
    assert first.count('class="id"') == PAGE_SIZE
    following = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert site.browser.get(following).text.count('class="id"') == 6
    for spelling in ("etl", "ETL", "%20etl"):
        only = site.browser.get(f"/tasks?queue={spelling}&state=queued").text
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


def test_a_request_names_the_limit_that_it_waits_for() -> None:
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_ETL__LAUNCH_RATE": "0.5"}
    with MemoryQueue(environ=environ) as queue:
        queue.submit(["true"], id="waits", queue="etl")
        text = open_site(queue).browser.get("/tasks/waits").text
    assert "<dt>Waits for</dt><dd>launch_rate of its queue: at most 0.5 a second</dd>" in text


def test_html_in_a_reason_is_shown_as_text(site: Site) -> None:
    site.queue.submit(["true"], id="stopped")
    site.queue.stop("stopped", by="<script>alert(1)</script>")
    for path in ("/tasks", "/tasks/stopped"):
        text = site.browser.get(path).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize("path", ["/", "/tasks", "/tasks/waits", "/tasks/stopped", "/dead"])
def test_what_stands_between_backticks_is_shown_as_code(site: Site, path: str) -> None:
    site.queue.pause("etl")
    site.queue.submit(["true"], id="waits", queue="etl")
    site.queue.submit(["true"], id="stopped")
    site.queue.stop("stopped", by="`ecs-queue <purge>`")
    site.queue.ledger.heartbeat(worker_info("one", health="see `ecs-queue <doctor>`"), 60)
    letter = DeadLetter(key="letter", queue="etl", reason="see `ecs-queue <dead>`", body=b"{")
    site.queue.ledger.add_dead_letter(letter)
    text = site.browser.get(path).text
    assert re.search("<code>ecs-queue (&lt;|queues resume etl<)", text)
    assert "`" not in text


def test_a_backtick_without_a_second_one_and_those_of_given_rules_stay_as_they_are(site: Site) -> None:
    site.queue.submit(["true"], id="stopped")
    site.queue.stop("stopped", by="`a` and ` and <b>")
    assert "<code>a</code> and ` and &lt;b&gt;" in site.browser.get("/tasks/stopped").text
    site.queue.submit(["true"], id="ruled")
    rules = '[{"on_reason": "`data`*", "action": "retry"}]'
    claim = ClaimRequest(claim="c", worker="w", args="{}", target="t", retry_rules=rules)
    assert site.queue.ledger.claim("ruled", claim).record is not None
    assert "`data`*" in site.browser.get("/tasks/ruled").text


def test_an_error_of_the_command_line_is_shown_with_its_code() -> None:
    with MemoryQueue() as queue:
        text = open_comparison(queue, "See `ecs-queue config`.").get("/tasks/one/arguments").text
        assert "<p>See <code>ecs-queue config</code>.</p>" in text


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


def open_comparison(queue: MemoryQueue, found: list[str] | str) -> TestClient:
    """Return a logged-in browser of a page that finds these differences in each request."""
    presentation = replace(make_presentation(), argument_diff=lambda _client, _id: found)
    app = WebApp(queue, queue._broker, Access(token=TOKEN), presentation, make_commands()).build()
    browser = TestClient(app, base_url="http://127.0.0.1:8480")
    browser.get(f"/login?token={TOKEN}")
    return browser


def test_what_was_sent_is_compared_with_what_would_be_sent_now() -> None:
    with MemoryQueue() as queue:
        browser = open_comparison(queue, ["--- then", "+++ now", '-  "cpu": "256"', '+  "cpu": "<512>"', '   "memory"'])
        text = browser.get("/tasks/one/arguments").text
        assert "<del>-  &#34;cpu&#34;: &#34;256&#34;</del>\n" in text
        assert "<ins>+  &#34;cpu&#34;: &#34;&lt;512&gt;&#34;</ins>\n   &#34;memory" in text

        assert "<p>The same.</p>" in open_comparison(queue, "The same.").get("/tasks/one/arguments").text


def test_who_may_not_see_values_sees_no_comparison(site: Site) -> None:
    site.queue.submit(["true"], id="one")
    answer = site.browser.get("/tasks/one/arguments")
    assert (answer.status_code, "Log in" in answer.text) == (403, True)
    assert "/tasks/one/arguments" not in site.browser.get("/tasks/one").text


def test_an_unknown_request_has_no_arguments() -> None:
    def find_nothing(_client: object, record_id: str) -> list[str]:
        raise UnknownTask(f"no request has the id {record_id}")

    with MemoryQueue() as queue:
        presentation = replace(make_presentation(), argument_diff=find_nothing)
        app = WebApp(queue, queue._broker, Access(token=TOKEN), presentation, make_commands()).build()
        browser = TestClient(app, base_url="http://127.0.0.1:8480")
        browser.get(f"/login?token={TOKEN}")
        answer = browser.get("/tasks/one/arguments")
        assert (answer.status_code, "no request has the id one" in answer.text) == (404, True)
