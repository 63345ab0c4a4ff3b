"""Who may see and do what on the page in Airflow, behind Airflow's real API server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from starlette.requests import Request

from ecs_queue.airflow.page.access import PageAccess, set_visitor
from ecs_queue.airflow.plugin import URL_PREFIX
from ecs_queue.protocol.states import State
from ecs_queue.testing import MemoryQueue
from ecs_queue.web.rights import Refusal
from tests.airflow.dag_auth_manager import USERS, DagAuthManager
from tests.airflow.page_site import ADDRESS, AUTH_MANAGER, NAME, RUN, PageSite, add_dags, add_task_instance, run_site
from tests.fake_clock import FakeClock

pytestmark = pytest.mark.airflow

PAGES = ("/", "/tasks", "/tasks/of-a", "/dead", "/journal", "/journal/events", "/find?id=of-a", "/static/style.css")
NAMESPACE_PAGES = ("/", "/tasks", "/tasks/of-a", "/tasks/unknown", "/dead", "/journal", "/find?id=x")
SEES_ALL = ("reads_all", "edits_all", "edits_pools", "edits_a")
OF_A = f"/task-instances/a/task/-1/{RUN}"
OF_B = f"/task-instances/b/task/-1/{RUN}"
CHANGES = (
    "/tasks/of-a/stop",
    "/tasks/other/replay",
    "/dead/x/requeue",
    "/queues/etl/pause",
    "/queues/etl/resume",
    "/queues/etl/drain",
)
OWN = {"origin": ADDRESS, "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def server() -> Iterator[PageSite]:
    settings = {"AIRFLOW__CORE__AUTH_MANAGER": AUTH_MANAGER, "AIRFLOW__API__BASE_URL": f"{ADDRESS}/"}
    with run_site(settings) as server:
        add_dags("a", "b")
        add_task_instance("a", "task", ("failed", "of-a"))
        add_task_instance("b", "task", ("failed", "of-b"))
        yield server


@pytest.fixture
def queue() -> Iterator[MemoryQueue]:
    with MemoryQueue() as queue:
        for name in ("of-a", "of-b", "other"):
            queue.submit(["echo", "swordfish"], id=name, queue="etl")
        yield queue


@pytest.fixture
def site(server: PageSite, queue: MemoryQueue) -> PageSite:
    server.mount(queue, allow_changes=True)
    return server


def form_of(site: PageSite, user: str) -> dict[str, str]:
    """What the forms for a user hold."""
    found = re.search(r'name="form_token" value="(\w+)"', site.browser(user).get(f"{URL_PREFIX}/tasks/of-a").text)
    return {"form_token": found[1] if found else "none"}


def assert_unchanged(queue: MemoryQueue) -> None:
    assert {queue.status(name).state for name in ("of-a", "of-b", "other")} == {State.QUEUED}
    assert queue.paused_queues() == {}
    assert len(list(queue.tasks())) == 3


@pytest.mark.parametrize("path", [*PAGES, OF_A, *CHANGES, "/healthz", "/nowhere"])
def test_without_airflows_log_in_there_is_nothing(site: PageSite, queue: MemoryQueue, path: str) -> None:
    for token in (None, "wrong", "e30.e30.c2ln"):
        browser = site.browser(None)
        if token is not None:
            browser.cookies.set("_token", token)
        for method in ("GET", "POST", "HEAD"):
            answer = browser.request(method, f"{URL_PREFIX}{path}", headers=OWN)
            assert answer.status_code in (401, 403)
            assert answer.headers["x-frame-options"] == "SAMEORIGIN"
            assert len(answer.text) < 50
    assert_unchanged(queue)


def test_a_browser_is_led_to_airflows_log_in_and_back(site: PageSite) -> None:
    answer = site.browser(None, accept="text/html").get(f"{URL_PREFIX}/tasks?queue=etl")
    assert answer.status_code == 303
    address = urlsplit(answer.headers["location"])
    assert address.path == "/auth/login"
    if address.query:  # Airflow 3.1 leads to its first page
        assert parse_qs(address.query) == {"next": ["/ecs-queue/tasks?queue=etl"]}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("path", NAMESPACE_PAGES)
def test_the_pages_about_all_requests_are_for_users_who_may_read_every_dag(
    site: PageSite, path: str, user: str
) -> None:
    answer = site.browser(user).get(f"{URL_PREFIX}{path}")
    if user in SEES_ALL:
        assert answer.status_code in (200, 303, 404)
    else:
        assert answer.status_code == 403
        for name in ("etl", "of-a", "of-b", "Dead letters"):
            assert name not in answer.text


@pytest.mark.parametrize("user", [user for user in USERS if user not in SEES_ALL])
def test_events_are_streamed_only_to_users_who_may_read_every_dag(site: PageSite, user: str) -> None:
    answer = site.browser(user).get(f"{URL_PREFIX}/journal/events")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/plain; charset=utf-8")


def test_a_new_dag_and_one_that_is_gone_are_among_every_dag(site: PageSite) -> None:
    """`reads_a_and_b` may read each DAG that there is: an id that no DAG has stands for the others."""
    assert site.browser("reads_a_and_b").get(f"{URL_PREFIX}/tasks").status_code == 403


@pytest.mark.parametrize("user", USERS)
def test_the_request_of_a_task_instance_needs_the_right_to_its_dag(site: PageSite, user: str) -> None:
    for path, dag, request_id in ((OF_A, "a", "of-a"), (OF_B, "b", "of-b")):
        answer = site.browser(user).get(f"{URL_PREFIX}{path}")
        may_read = USERS[user]("GET", "TASK_INSTANCE", dag)
        assert answer.status_code == (200 if may_read else 404), (user, dag)
        assert (request_id in answer.text) == may_read
        assert ('href="/ecs-queue/tasks"' in answer.text) == (user in SEES_ALL)


def test_output_needs_the_right_to_read_the_dags_logs(site: PageSite, queue: MemoryQueue) -> None:
    hidden = "All requests are for users who"
    assert hidden not in site.browser("reads_a").get(f"{URL_PREFIX}{OF_A}").text
    assert hidden in site.browser("reads_a_without_logs").get(f"{URL_PREFIX}{OF_A}").text


def test_a_task_instance_that_may_not_be_read_is_as_one_that_there_is_not(site: PageSite) -> None:
    browser = site.browser("reads_a")
    forbidden = browser.get(f"{URL_PREFIX}{OF_B}")
    unknown = browser.get(f"{URL_PREFIX}/task-instances/a/unknown/-1/{RUN}")
    assert (forbidden.status_code, unknown.status_code) == (404, 404)
    assert forbidden.text == unknown.text


@pytest.mark.parametrize("path", ["/tasks/of-a", OF_A])
@pytest.mark.parametrize("user", ["edits_pools", "reads_all"])
def test_arguments_stay_hidden_from_everybody(site: PageSite, path: str, user: str) -> None:
    assert "swordfish" not in site.browser(user).get(f"{URL_PREFIX}{path}").text


def test_the_answer_about_every_dag_is_kept_for_some_seconds(site: PageSite) -> None:
    browser = site.browser("reads_all")
    browser.get(f"{URL_PREFIX}/tasks")
    asked = DagAuthManager.asked
    browser.get(f"{URL_PREFIX}/tasks")
    assert DagAuthManager.asked == asked


def test_rights_that_are_taken_back_end_after_these_seconds(site: PageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    access = PageAccess(allow_changes=False, base_url="", secret=b"secret", clock=clock)
    request = Request({"type": "http", "headers": [], "state": {}})
    set_visitor(request, SimpleAuthManagerUser(username="reads_all", role="VIEWER"))
    assert access.rights(request).look
    monkeypatch.setitem(USERS, "reads_all", USERS["nothing"])
    clock.advance(14)
    assert access.rights(request).look
    clock.advance(1)
    assert not access.rights(request).look
    assert not access.find_rights(request, "a").look


def test_without_a_base_url_changes_are_for_this_machine_only(site: PageSite) -> None:
    access = PageAccess(allow_changes=True, base_url="", secret=b"secret")

    def refusal(host: str) -> Refusal | None:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", host.encode())]}
        return access.refuse(Request(scope))

    assert refusal("localhost:8080") is None
    assert refusal(NAME) is not None
    assert refusal("") is not None


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("user", [user for user in USERS if user != "edits_pools"])
def test_a_change_needs_the_right(site: PageSite, queue: MemoryQueue, path: str, user: str) -> None:
    form = form_of(site, user)
    answer = site.browser(user).post(f"{URL_PREFIX}{path}", data=form, headers=OWN)
    if user == "edits_all" and path.endswith("/stop"):
        assert (answer.status_code, queue.status("of-a").state) == (303, State.REVOKED)
        return
    assert answer.status_code == 403
    assert_unchanged(queue)


def test_a_user_who_may_edit_every_dag_and_pools_changes_what_there_is(site: PageSite, queue: MemoryQueue) -> None:
    browser, form = site.browser("edits_pools", **OWN), form_of(site, "edits_pools")
    paused = browser.post(f"{URL_PREFIX}/queues/etl/pause", data=form)
    assert (paused.status_code, paused.headers["location"]) == (303, "/ecs-queue/")
    assert list(queue.paused_queues()) == ["etl"]
    browser.post(f"{URL_PREFIX}/queues/etl/resume", data=form)
    assert queue.paused_queues() == {}
    stopped = browser.post(f"{URL_PREFIX}/tasks/of-a/stop", data=form)
    assert stopped.headers["location"] == "/ecs-queue/tasks/of-a"
    assert queue.status("of-a").state is State.REVOKED
    assert "edits_pools in Airflow" in queue.status("of-a").reason


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ADDRESS, "sec-fetch-site": "cross-site"}, 403),
        ({"origin": ADDRESS, "sec-fetch-site": "same-site"}, 403),
        ({"host": "evil.example", "origin": "https://evil.example"}, 421),
        ({"host": f"{NAME}.evil.example"}, 421),
        ({"host": ""}, 421),
    ],
)
def test_a_request_of_another_origin_or_host_changes_nothing(
    site: PageSite, queue: MemoryQueue, path: str, headers: dict[str, str], status: int
) -> None:
    form = form_of(site, "edits_pools")
    answer = site.browser("edits_pools").post(f"{URL_PREFIX}{path}", data=form, headers=headers)
    assert answer.status_code == status
    assert_unchanged(queue)


@pytest.mark.parametrize("path", CHANGES)
def test_without_the_users_own_form_nothing_is_changed(site: PageSite, queue: MemoryQueue, path: str) -> None:
    of_another = form_of(site, "edits_all")
    assert of_another != form_of(site, "edits_pools")
    for form in ({"x": "y"}, {"form_token": ""}, of_another):
        assert site.browser("edits_pools").post(f"{URL_PREFIX}{path}", data=form, headers=OWN).status_code == 403
    assert_unchanged(queue)


def test_a_token_in_a_header_needs_the_form_too(site: PageSite, queue: MemoryQueue) -> None:
    """Airflow itself adds such a header where everybody is an administrator."""
    browser = site.browser("edits_pools")
    headers = {"authorization": f"Bearer {browser.cookies['_token']}"}
    browser.cookies.clear()
    assert browser.get(f"{URL_PREFIX}/tasks", headers=headers).status_code == 200
    assert browser.post(f"{URL_PREFIX}/tasks/of-a/stop", data={"x": "y"}, headers=headers).status_code == 403
    assert_unchanged(queue)


@pytest.mark.parametrize("path", CHANGES)
def test_a_page_that_only_reads_changes_nothing(server: PageSite, queue: MemoryQueue, path: str) -> None:
    server.mount(queue, allow_changes=True)
    form = form_of(server, "edits_pools")
    server.mount(queue)
    browser = server.browser("edits_pools")
    assert browser.post(f"{URL_PREFIX}{path}", data=form, headers=OWN).status_code in (404, 405)
    assert "form_token" not in browser.get(f"{URL_PREFIX}/tasks/of-a").text
    assert_unchanged(queue)


@pytest.mark.parametrize("path", ["/", "/tasks/unknown", "/nowhere", "/static/style.css", OF_A])
def test_only_airflows_own_pages_may_frame_it(site: PageSite, path: str) -> None:
    answer = site.browser("reads_all").get(f"{URL_PREFIX}{path}")
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
