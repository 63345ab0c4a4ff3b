"""conf/grafana-dashboard.json is the one that the table of panels gives, and asks for what workers show.

`make conf-check` lets promtool parse its expressions.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest

from ecs_queue.monitoring.catalogue import METRICS, Source
from ecs_queue.monitoring.dashboard import render_dashboard
from ecs_queue.monitoring.dashboard_panels import ROWS
from tests.conf_check import fill_in
from tests.docs import ROOT
from tests.monitoring.promql import find_unknown, metrics_of

DOCUMENT = json.loads((ROOT / "conf" / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DOCUMENT["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]


def test_the_file_is_the_one_that_the_table_gives() -> None:
    command = "python -c 'from ecs_queue.monitoring.dashboard import *; print(render_dashboard(), end=\"\")'"
    assert (ROOT / "conf" / "grafana-dashboard.json").read_text() == render_dashboard(), (
        f"{command} > conf/grafana-dashboard.json"
    )


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_query_names_only_what_workers_show(expression: str) -> None:
    assert find_unknown(expression) == []


def test_every_metric_has_a_panel() -> None:
    shown = {metric.name for expression in EXPRESSIONS for metric in metrics_of(expression)}
    assert shown == METRICS.keys()


def test_every_selector_has_the_namespace_and_that_of_a_queues_metric_the_queue() -> None:
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"\b(ecs_queue_\w+|up|ALERTS)\{([^}]*)\}", expression):
            assert 'namespace=~"$namespace"' in matchers, expression
            metric = METRICS.get(re.sub("_(bucket|sum|count)$", "", name), METRICS.get(name))
            if "$queue" in matchers:
                assert metric is not None, expression
                assert "queue" in metric.labels, expression
        names = re.findall(r"\becs_queue_\w+(?!\w*\{)\b", expression)
        assert not names, f"{names} without a selector"
        assert "$" not in fill_in(expression)


def test_values_of_the_ledger_are_not_added_up_over_the_workers() -> None:
    for expression in EXPRESSIONS:
        for metric in metrics_of(expression):
            if metric.source is Source.LEDGER:
                inner = re.search(rf"(\w+)(?: by \([^)]*\))? \((?:rate\(|increase\()?{metric.name}\{{", expression)
                outer = re.search(rf"\b(max)\({metric.name}\{{", expression)
                assert (inner and inner[1] == "max") or outer, expression


def test_problems_come_first_and_no_panel_lies_on_another() -> None:
    assert next(iter(ROWS)) == "Problems"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_the_variables_are_read_from_metrics_that_have_these_labels() -> None:
    datasource, *others = DOCUMENT["templating"]["list"]
    assert (datasource["name"], datasource["query"]) == ("datasource", "prometheus")
    assert [each["name"] for each in others] == ["namespace", "queue"]
    for each in others:
        query = re.fullmatch(r"label_values\((.*), (\w+)\)", each["query"]["query"])
        assert query
        assert query[2] == each["name"]
        assert find_unknown(f"max by ({query[2]}) ({query[1]})") == []
    assert {panel["datasource"]["uid"] for panel in PANELS if "datasource" in panel} == {"${datasource}"}
