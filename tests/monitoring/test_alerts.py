"""conf/prometheus-alerts.yaml asks for metrics that exist; each alert says what to do, has a section and a unit test.

`make conf-check` runs the unit tests, with promtool.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.docs import ROOT
from tests.monitoring.promql import find_unknown, metrics_of

CONF = ROOT / "conf"
(GROUP,) = yaml.safe_load((CONF / "prometheus-alerts.yaml").read_text())["groups"]
ALERTS: dict[str, Any] = {rule["alert"]: rule for rule in GROUP["rules"]}
UNIT_TESTS = (ROOT / "tests" / "alerts" / "prometheus-alerts-test.yaml").read_text()


def test_what_no_worker_shows_is_found() -> None:
    assert find_unknown("max by (queue, que) (ecs_queue_workers)") == ["label que"]
    assert find_unknown('ecs_queue_worker{queue="q"} or ecs_queue_wait_seconds') == [
        "metric ecs_queue_worker",
        "metric ecs_queue_wait_seconds",
    ]
    assert find_unknown('rate(ecs_queue_run_task_results_total{result="throttle", queue=~"$queue"}[5m])') == [
        "result=throttle of ecs_queue_run_task_results_total"
    ]
    assert find_unknown('ecs_queue_requests{state="SUCCESS", id=""}') == [
        "state=SUCCESS of ecs_queue_requests",
        "label id of ecs_queue_requests",
    ]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_names_only_what_workers_show(name: str) -> None:
    assert find_unknown(ALERTS[name]["expr"]) == []


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_severity_a_summary_and_a_section_of_the_page(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert (page, anchor) == ("docs/on-call.md", name.lower())
    assert name in headings


@pytest.mark.parametrize("name", ALERTS)
def test_a_summary_uses_labels_that_the_alert_has(name: str) -> None:
    rule = ALERTS[name]
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    by = re.search(r"\bby \(([^)]*)\)", rule["expr"])
    assert used <= (set(re.findall(r"\w+", by[1])) if by else {"job", "namespace", "instance"})


@pytest.mark.parametrize("name", ALERTS)
def test_a_unit_test_lets_an_alert_fire(name: str) -> None:
    assert re.search(rf'alertname="{name}", alertstate="firing"|alertname: {name}\n.*\n +exp_alerts:\n', UNIT_TESTS)


def test_the_page_has_a_section_for_each_alert_in_their_order_with_its_three_parts() -> None:
    page = (ROOT / "docs" / "on-call.md").read_text()
    _, *sections = re.split(r"^## (?=EcsQueue)", page, flags=re.MULTILINE)
    assert [section.partition("\n")[0] for section in sections] == list(ALERTS)
    for section in sections:
        assert re.findall(r"^\*(.*?)\.\*", section, re.MULTILINE) == ["Means", "Look at", "Do"], section


def test_prometheus_scrapes_the_job_that_the_alerts_expect_and_reads_them() -> None:
    document = yaml.safe_load((CONF / "prometheus.yaml").read_text())
    assert document["rule_files"] == ["prometheus-alerts.yaml"]
    (scrape,) = document["scrape_configs"]
    jobs = {job for rule in ALERTS.values() for job in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert jobs == {scrape["job_name"]}
    assert scrape["static_configs"][0]["labels"].keys() == {"namespace"}


def test_values_of_the_ledger_are_never_added_up_over_the_workers() -> None:
    for rule in ALERTS.values():
        for added in re.findall(r"\bsum by \([^)]*\) \((?!max )([^)]*\))", rule["expr"]):
            assert all(metric.source == "worker" for metric in metrics_of(added)), rule["expr"]
