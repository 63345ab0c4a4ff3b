"""From a task instance of Airflow to its requests."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from ecs_queue.airflow.plugin import URL_PREFIX, EcsQueuePlugin
from ecs_queue.container_logs.local_files import LOCAL_LOG_VARIABLE
from ecs_queue.testing import Exit, MemoryQueue
from tests.airflow.page_site import ADDRESS, AUTH_MANAGER, RUN, PageSite, add_dags, add_task_instance, run_site

pytestmark = pytest.mark.airflow

FIRST, SECOND, THIRD = (str(uuid.UUID(int=number)) for number in (1, 2, 3))


@pytest.fixture(scope="module")
def server() -> Iterator[PageSite]:
    settings = {
        "AIRFLOW__CORE__AUTH_MANAGER": AUTH_MANAGER,
        "AIRFLOW__API__BASE_URL": ADDRESS,
        "AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN": ".+",
    }
    with run_site(settings) as server:
        yield server


@pytest.fixture
def browser(server: PageSite) -> Iterator[TestClient]:
    """A browser of a user who may read the DAG `a`, and a queue in which FIRST and SECOND have failed."""
    add_dags("a", "b")
    with MemoryQueue(lambda _: Exit(3)) as queue:
        for name in (FIRST, SECOND):
            queue.submit(["false"], id=name).result()
        queue.submit(["true"], id=THIRD)
        server.mount(queue)
        yield server.browser("reads_a")


def path_of(task: str = "task", map_index: str = "{MAP_INDEX}", run: str = RUN) -> str:
    """The address that Airflow's UI makes of the view's: it leaves a placeholder for which it has no value."""
    (view,) = [view for view in EcsQueuePlugin().external_views if view["destination"] == "task_instance"]
    values = {"{DAG_ID}": "a", "{TASK_ID}": task, "{MAP_INDEX}": map_index, "{RUN_ID}": run}
    return re.sub(r"\{\w+\}", lambda found: values[found[0]], f"/{view['href']}")


@pytest.fixture(autouse=True)
def _page_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__AIRFLOW_PAGE", "read")


def test_the_newest_try_with_a_request_is_shown_and_leads_to_the_others(browser: TestClient) -> None:
    add_task_instance("a", "task", ("failed", FIRST), ("failed", SECOND), ("scheduled", None))
    text = browser.get(path_of()).text
    assert f'<h1 class="id">{SECOND}' in text
    assert "exit code 3" in text
    assert f"Task instance a / task / {RUN}" in text
    assert re.findall(r'href="\?show=(\d)"( aria-current="true")?>(Try \d)</a> <span class="muted">(\w+)', text) == [
        ("1", "", "Try 1", "failed"),
        ("2", ' aria-current="true"', "Try 2", "failed"),
        ("3", "", "Try 3", "scheduled"),
    ]
    assert f'<h1 class="id">{FIRST}' in browser.get(f"{path_of()}?show=1").text


@pytest.mark.parametrize("run", [RUN, "a/b", "50% up", "a b", "~x:y.z-1", "über"])
def test_any_run_id_is_found_as_each_version_of_airflow_quotes_it(browser: TestClient, run: str) -> None:
    add_task_instance("a", "task", ("failed", FIRST), run_id=run)
    paths = [path_of(run=quote(run, safe="!'()*"))]  # as encodeURIComponent does, since Airflow 3.2
    if "%" not in run:
        paths.append(path_of(run=run))  # Airflow 3.1
    for path in paths:
        assert f'<h1 class="id">{FIRST}' in browser.get(path).text, path


def test_a_mapped_task_is_found_by_its_index(browser: TestClient) -> None:
    add_task_instance("a", "mapped", ("failed", FIRST), map_index=0)
    add_task_instance("a", "mapped", ("failed", SECOND), map_index=12)
    assert f'<h1 class="id">{FIRST}' in browser.get(path_of("mapped", "0")).text
    text = browser.get(path_of("mapped", "12")).text
    assert f'<h1 class="id">{SECOND}' in text
    assert f"a / mapped [12] / {RUN}" in text
    assert browser.get(path_of("mapped", "3")).status_code == 404


@pytest.mark.parametrize("map_index", ["-2", "x", "1e3", "99999999999999999999", "%C2%B2", "{map_index}"])
def test_what_is_no_map_index_is_not_found(browser: TestClient, map_index: str) -> None:
    add_task_instance("a", "task", ("failed", FIRST))
    assert browser.get(path_of(map_index=map_index)).status_code == 404


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "has not sent this task instance to ecs-queue yet: it is not scheduled."),
        ("scheduled", "has not sent this task instance to ecs-queue yet: it is scheduled."),
        ("queued", "has not sent this task instance to ecs-queue yet: it is queued."),
        ("skipped", "knows no request of this try, which is skipped"),
    ],
)
@pytest.mark.parametrize("external_id", [None, "a pod's name"])
def test_a_task_instance_without_a_request_says_so(
    browser: TestClient, state: str | None, external_id: str | None, reason: str
) -> None:
    add_task_instance("a", "task", (state, external_id))
    answer = browser.get(path_of())
    assert answer.status_code == 200
    assert "<h1>No request</h1>" in answer.text
    assert reason in answer.text


def test_a_request_that_is_not_known_any_more_is_named(browser: TestClient) -> None:
    name = str(uuid.UUID(int=9))
    add_task_instance("a", "task", ("success", name))
    assert f"Request <code>{name}</code> is not known here" in browser.get(path_of()).text


def test_the_names_of_a_task_instance_are_shown_as_text(browser: TestClient) -> None:
    run = "<script>alert(1)</script>"
    add_task_instance("a", "task", ("failed", FIRST), run_id=run)
    text = browser.get(path_of(run=run)).text
    assert f'<h1 class="id">{FIRST}' in text
    assert "<script>alert" not in text


def test_a_token_in_the_containers_lines_is_hidden(
    server: PageSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with MemoryQueue() as queue:
        handle = queue.submit(["true"], id=FIRST)
        handle.result()
        arn = queue.status(FIRST).arn
        (tmp_path / f"{arn.rpartition('/')[2]}.log").write_text(
            "began token='eyJhbGciOiJI.eyJzdWIiOiIw.NFFCN48Zcwv3'\n"
        )
        monkeypatch.setenv(LOCAL_LOG_VARIABLE, str(tmp_path))
        add_dags("a")
        add_task_instance("a", "task", ("success", FIRST))
        server.mount(queue)
        text = server.browser("reads_a").get(path_of()).text
    assert "began" in text
    assert "eyJ" not in text


def test_a_request_of_the_executor_is_not_replayed(server: PageSite) -> None:
    """Its token is no longer valid: clearing the task makes a new one."""
    with MemoryQueue() as queue:
        queue.submit(["true"], id="direct")
        queue.submit(["true"], id="task")
        queue.ledger.adopt(["task"], "airflow-7")
        server.mount(queue, allow_changes=True)
        browser = server.browser("edits_pools", origin=ADDRESS)
        assert "/replay" in browser.get(f"{URL_PREFIX}/tasks/direct").text
        text = browser.get(f"{URL_PREFIX}/tasks/task").text
        assert "/replay" not in text
        found = re.search(r'name="form_token" value="(\w+)"', text)
        assert found is not None
        answer = browser.post(f"{URL_PREFIX}/tasks/task/replay", data={"form_token": found[1]})
        assert answer.status_code == 409
        assert "clear the task there" in answer.text
        assert len(list(queue.tasks())) == 2
