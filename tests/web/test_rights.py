"""Visitors with fewer rights than a logged in one of `ecs-queue web`, as another program's rules make them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.protocol.states import State
from ecs_queue.replay.retry import build_retry_id
from ecs_queue.testing import MemoryQueue
from ecs_queue.web.access import security_headers
from ecs_queue.web.app import WebApp
from ecs_queue.web.groups import Member, RequestGroup
from ecs_queue.web.rights import CHANGES, LogIn, Refusal, Rights

FORM = {"form_token": "form"}
GROUP = "/groups/one"
ALL = Rights(look=True, output=True, values=True, changes=CHANGES)


@dataclass
class FakeRules:
    """One visitor, whose rights a test sets."""

    visitor: Rights = field(default_factory=Rights)
    allow_changes: bool = True
    advice: str = "Ask the librarian"

    @property
    def security_headers(self) -> Mapping[str, str]:
        return security_headers(framed=True)

    @property
    def login(self) -> LogIn | None:
        return None

    def refuse(self, request: Request) -> Refusal | None:
        return None

    def rights(self, request: Request) -> Rights:
        return self.visitor

    def actor(self, request: Request) -> str:
        return "a librarian"

    def form_token(self, request: Request) -> str:
        return "form"

    def is_genuine(self, request: Request, form_token: str) -> bool:
        return form_token == "form"


@dataclass
class FakeGroups:
    """One group."""

    members: tuple[Member, ...] = ()
    visitor: Rights = field(default_factory=lambda: Rights(look=True))
    path: str = "/groups/{name:path}"

    def find(self, request: Request) -> tuple[RequestGroup | None, Rights]:
        if not self.visitor.look or request.path_params["name"] != "one":
            return None, Rights()
        return RequestGroup("Loan", "one", self.members, "It was never lent."), self.visitor


@dataclass
class Library:
    browser: TestClient
    queue: MemoryQueue
    rules: FakeRules
    groups: FakeGroups


@pytest.fixture
def library() -> Iterator[Library]:
    with MemoryQueue() as queue:
        queue.submit(["true"], id="one", queue="etl")
        queue.submit(["true"], id="two", queue="etl")
        rules, groups = FakeRules(), FakeGroups()
        presentation = replace(make_presentation(), last_lines=lambda _client, _record, _limit: ["swordfish"])
        pages = WebApp(queue, queue._broker, rules, presentation, make_commands(), groups).build()
        yield Library(TestClient(pages), queue, rules, groups)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tasks",
        "/tasks/one",
        "/tasks/one/arguments",
        "/tasks/nothing",
        "/runners",
        "/dead",
        "/journal",
        "/find?id=one",
    ],
)
def test_without_the_right_to_look_there_is_only_an_error(library: Library, path: str) -> None:
    answer = library.browser.get(path, follow_redirects=False)
    assert answer.status_code == 403
    assert "Ask the librarian." in answer.text
    assert re.findall(r'href="(?!/static/|#)', answer.text.replace('href="/">', "")) == []
    assert "etl" not in answer.text


def test_without_the_right_to_look_events_are_not_streamed(library: Library) -> None:
    answer = library.browser.get("/journal/events")
    assert (answer.status_code, answer.text) == (403, "Ask the librarian\n")


@pytest.mark.parametrize("path", ["/tasks/one/stop", "/tasks/one/replay", "/queues/etl/pause", "/dead/x/requeue"])
@pytest.mark.parametrize("changes", [frozenset(), CHANGES])
def test_a_change_needs_its_own_right(library: Library, path: str, changes: frozenset[str]) -> None:
    name = path.rpartition("/")[2]
    library.rules.visitor = Rights(look=True, changes=changes - {name})
    assert library.browser.post(path, data=FORM).status_code == 403
    assert library.queue.status("one").state is State.QUEUED
    assert library.queue.paused_queues() == {}
    assert len(list(library.queue.tasks())) == 2


def test_a_change_needs_a_genuine_form(library: Library) -> None:
    library.rules.visitor = ALL
    assert library.browser.post("/tasks/one/stop", data={"form_token": "other"}).status_code == 403
    assert library.queue.status("one").state is State.QUEUED
    assert library.browser.post("/tasks/one/stop", data=FORM).status_code == 200
    stopped = library.queue.status("one")
    assert stopped.state is State.REVOKED
    assert "a librarian" in stopped.reason


def test_only_permitted_changes_have_buttons(library: Library) -> None:
    library.rules.visitor = Rights(look=True, changes=frozenset({"stop"}))
    assert re.findall(r'action="/tasks/one/(\w+)"', library.browser.get("/tasks/one").text) == ["stop"]
    assert 'method="post"' not in library.browser.get("/").text
    library.rules.visitor = ALL
    assert re.findall(r'action="/tasks/one/(\w+)"', library.browser.get("/tasks/one").text) == ["stop", "replay"]
    assert 'action="/queues/etl/pause"' in library.browser.get("/").text


def test_a_request_that_another_program_repeats_has_no_button_for_a_replay(library: Library) -> None:
    commands = replace(make_commands(), may_replay=lambda record: record is not None and record.id == "two")
    pages = WebApp(library.queue, library.queue._broker, library.rules, make_presentation(), commands).build()
    library.rules.visitor = ALL
    browser = TestClient(pages)
    assert "/replay" not in browser.get("/tasks/one").text
    assert "/replay" in browser.get("/tasks/two").text


def test_output_needs_its_own_right(library: Library) -> None:
    library.rules.visitor = Rights(look=True)
    assert "swordfish" not in library.browser.get("/tasks/one").text
    library.rules.visitor = Rights(look=True, output=True)
    assert "swordfish" in library.browser.get("/tasks/one").text


def test_a_group_shows_its_newest_request_and_leads_to_the_others(library: Library) -> None:
    library.groups.members = (
        Member("1", "Loan 1", "ended", "one"),
        Member("2", "Loan 2", "", "two"),
        Member("3", "Loan 3", "", ""),
    )
    newest = library.browser.get(GROUP).text
    assert '<h1 class="id">two' in newest
    assert re.findall(r'href="(\?show=\d)"', newest) == ["?show=1", "?show=2", "?show=3"]
    assert '<h1 class="id">one' in library.browser.get(f"{GROUP}?show=1").text


def test_a_visitor_who_may_see_one_request_gets_no_links_to_all(library: Library) -> None:
    library.groups.members = (Member("1", "Loan 1", "ended", "one"),)
    (record,) = library.queue.find_records(["one"])
    assert record is not None
    retry = build_retry_id(record)
    library.queue.submit(["true"], id=retry, queue="etl")
    text = library.browser.get(GROUP).text
    assert '<h1 class="id">one' in text
    assert 'href="/tasks"' not in text
    assert 'action="/find"' not in text
    assert f'<dt>Retried as</dt><dd><span class="id">{retry}</span></dd>' in text
    library.rules.visitor = Rights(look=True)
    assert 'href="/tasks"' in library.browser.get(GROUP).text


@pytest.mark.parametrize(
    ("members", "query", "reason"),
    [
        ((), "", "It was never lent."),
        ((Member("1", "Loan 1", "", ""),), "", "It was never lent."),
        ((Member("1", "Loan 1", "", "gone"),), "", "<code>gone</code> is not known here"),
        ((Member("1", "Loan 1", "", "one"),), "?show=7", "It was never lent."),
    ],
)
def test_a_group_without_a_request_says_so(
    library: Library, members: tuple[Member, ...], query: str, reason: str
) -> None:
    library.groups.members = members
    answer = library.browser.get(f"{GROUP}{query}")
    assert answer.status_code == 200
    assert "<h1>No request</h1>" in answer.text
    assert reason in answer.text


def test_a_group_that_may_not_be_seen_is_as_one_that_there_is_not(library: Library) -> None:
    unknown = library.browser.get("/groups/other")
    library.groups.visitor = Rights()
    forbidden = library.browser.get(GROUP)
    assert (unknown.status_code, forbidden.status_code) == (404, 404)
    assert unknown.text == forbidden.text
