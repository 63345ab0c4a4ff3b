"""The page in the UI of a complete Airflow below a path, in a real browser: from a failed task to its request."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from ecs_queue.airflow.local import LocalAirflow
from tests.airflow.system_queries import TIMEOUT_SECONDS, count_states
from tests.browser import open_page, run_chromium
from tests.servers import require_redis_binary

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]

BASE_PATH = "/team/airflow"
PAGES = f"{BASE_PATH}/ecs-queue"
RUN = "manual+1"  # in some versions the sign would become a space in the query of an address
#: What Chromium says of Airflow's frame around each plugin.
_SANDBOX = "allow-scripts and allow-same-origin for its sandbox"
_DAGS = Path(__file__).parent / "page_dags"


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """An Airflow with the page, in which the task `load` has failed."""
    require_redis_binary()
    names = [plugin.name for plugin in entry_points(group="airflow.plugins")]
    assert "ecs_queue" in names, "this environment has ecs-queue from before the plugin: make airflow-test installs it"
    directory = tmp_path_factory.mktemp("page")
    dags = Path(shutil.copytree(_DAGS, directory / "dags"))
    settings = {"AIRFLOW__ECS_QUEUE__AIRFLOW_PAGE": "changes"}
    with LocalAirflow(directory / "home", dags, workers=1, settings=settings, base_path=BASE_PATH) as started:
        assert started.wait_for_dags() == ["mendable"]
        started.trigger_dag("mendable", RUN)
        wait_for_state(started, "failed")
        yield started


def wait_for_state(airflow: LocalAirflow, state: str) -> None:
    airflow.wait_for(lambda: count_states(airflow, RUN) == {state: 1}, TIMEOUT_SECONDS, f"a task that is {state}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with run_chromium() as browser:
        yield browser


@pytest.fixture
def page(airflow: LocalAirflow, chromium: Browser) -> Iterator[Page]:
    """A browser whose user is logged in; it complains of nothing on the pages of ecs-queue."""
    password = airflow.password_file.read_text().split('"')[3]
    with open_page(chromium, viewport={"width": 1400, "height": 1000}) as (page, log):
        page.goto(f"{airflow.url}/")
        page.get_by_label("Username").fill("admin")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name=re.compile("sign in|log in", re.IGNORECASE)).click()
        page.wait_for_url(lambda url: "/login" not in url)
        yield page
        complaints = [each for each in log.messages + log.violations if PAGES in each and _SANDBOX not in each]
        assert complaints == []
        assert {origin for origin in log.origins if "127.0.0.1" in origin} == {airflow.url.removesuffix(BASE_PATH)}


def open_tab(airflow: LocalAirflow, page: Page) -> FrameLocator:
    """Go to the task instance in Airflow, and there to the tab of its request."""
    page.goto(f"{airflow.url}/dags/mendable/runs/{RUN.replace('+', '%2B')}/tasks/load")
    page.get_by_role("link", name="ecs-queue", exact=True).last.click()
    return page.frame_locator("iframe[title='ecs-queue']")


def test_a_failed_task_leads_to_its_request_and_when_it_is_cleared_to_the_new_one(
    airflow: LocalAirflow, page: Page
) -> None:
    frame = open_tab(airflow, page)
    expect(frame.get_by_role("heading", level=1)).to_contain_text("FAILED")
    expect(frame.locator(".notice.error")).to_contain_text("exit 137")
    expect(frame.locator("main")).to_contain_text(f"Task instance mendable / load / {RUN}")
    lines = frame.get_by_label("Last lines")
    expect(lines).to_contain_text("Executing workload")
    expect(lines).not_to_contain_text("eyJ")  # of the token that Airflow 3.1 prints

    (airflow.dags / "mended").touch()
    body = {"dry_run": False, "dag_run_id": RUN, "task_ids": ["load"], "reset_dag_runs": True, "only_failed": False}
    airflow.call_api("/dags/mendable/clearTaskInstances", body)
    wait_for_state(airflow, "success")

    def is_known() -> bool:
        heading = open_tab(airflow, page).get_by_role("heading", level=1)
        heading.wait_for()
        return "SUCCESS" in heading.inner_text()

    airflow.wait_for(is_known, TIMEOUT_SECONDS, "the end of the new request")
    frame = open_tab(airflow, page)
    tries = frame.get_by_role("navigation", name="Task instance")
    expect(tries.get_by_role("link")).to_have_count(2)
    tries.get_by_role("link", name="Try 1").click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("FAILED")


def test_the_menu_leads_to_all_requests_and_to_live_events(airflow: LocalAirflow, page: Page) -> None:
    page.goto(f"{airflow.url}/plugin/ecs-queue")
    frame = page.frame_locator("iframe[title='ecs-queue']")
    expect(frame.get_by_role("heading", name="Overview")).to_be_visible()
    frame.get_by_role("link", name="Tasks").click()
    frame.locator("table a.id").first.click()
    expect(frame.get_by_role("heading", name="Timeline")).to_be_visible()
    frame.get_by_role("link", name="Journal").click()
    expect(frame.get_by_role("status")).to_have_text("Live: new events appear at the top.")


def test_a_form_in_the_frame_changes_something(airflow: LocalAirflow, page: Page) -> None:
    page.goto(f"{airflow.url}/plugin/ecs-queue")
    frame = page.frame_locator("iframe[title='ecs-queue']")
    for button, state in (("Pause", "PAUSED"), ("Resume", "ACTIVE")):
        row = frame.get_by_role("row").filter(has=frame.get_by_role("rowheader", name="default"))
        row.get_by_text(button, exact=True).click()
        row.get_by_role("button", name=f"{button} now").click()
        expect(row.locator(".state").first).to_have_text(state)
