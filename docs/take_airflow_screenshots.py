"""Takes docs/screenshots/airflow-*.png of the page in Airflow's UI: make airflow-screenshots. Needs Chromium."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from ecs_queue.airflow.local import LocalAirflow

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser import open_page, run_chromium

FOLDER = Path(__file__).parent / "screenshots"
RUN = "2026-07-03"
DAG = '''"""A task whose container is killed."""
import os, signal, time
from airflow.sdk import dag, task

@dag(schedule=None)
def orders():
    @task
    def load():
        print("reading 1,200 orders", flush=True)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    load()

orders()
'''
_SECONDS = 300.0


def main() -> None:
    """Let a task of a whole local Airflow fail, and take its tab and the overview."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        dags = directory / "dags"
        dags.mkdir()
        (dags / "orders").with_suffix(".py").write_text(DAG)
        settings = {"AIRFLOW__ECS_QUEUE__AIRFLOW_PAGE": "changes", "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "0"}
        with LocalAirflow(directory / "home", dags, workers=2, settings=settings) as airflow:
            airflow.wait_for_dags()
            airflow.trigger_dag("orders", RUN)
            airflow.wait_for(
                lambda: airflow.fetch_rows("select 1 from task_instance where state = 'failed'") != [],
                _SECONDS,
                "the failure of the task",
            )
            with run_chromium() as browser:
                for scheme in ("light", "dark"):
                    with open_page(browser, viewport={"width": 1280, "height": 860}, color_scheme=scheme) as (page, _):
                        _take(airflow, page, scheme)


def _take(airflow: LocalAirflow, page: Page, scheme: str) -> None:
    page.goto(f"{airflow.url}/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(airflow.password_file.read_text().split('"')[3])
    page.get_by_role("button", name=re.compile("sign in", re.IGNORECASE)).click()
    page.wait_for_url(lambda url: "/login" not in url)
    frame = page.frame_locator("iframe[title='ecs-queue']")
    page.goto(f"{airflow.url}/dags/orders/runs/{RUN}/tasks/load")
    page.get_by_role("link", name="ecs-queue", exact=True).last.click()
    frame.get_by_role("heading", level=1).get_by_text("FAILED").wait_for()
    page.get_by_text("Dag Version", exact=True).first.wait_for()  # the last part of the page around the frame
    page.wait_for_timeout(2000)
    page.screenshot(path=FOLDER / f"airflow-task-{scheme}.png")


if __name__ == "__main__":
    main()
