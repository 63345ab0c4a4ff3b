"""Renders conf/grafana-dashboard.json: Grafana's JSON around the panels of `dashboard_panels`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ecs_queue.monitoring.dashboard_panels import ROWS, Panel

_WIDTH, _HEIGHT, _STAT_HEIGHT = 24, 8, 4
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_GREEN, _RED = "green", "red"


def render_dashboard() -> str:
    """Return the dashboard as Grafana's JSON."""
    document = {
        "uid": "ecs-queue",
        "title": "ecs-queue",
        "description": "Workers of ecs-queue. Written by ecs_queue/monitoring/dashboard.py.",
        "tags": ["ecs-queue"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": list(_variables())},
        "panels": list(_place_panels()),
    }
    return json.dumps(document, indent=2) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    names = (("namespace", "ecs_queue_build_info"), ("queue", 'ecs_queue_workers{namespace=~"$namespace"}'))
    for name, metric in names:
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": f"label_values({metric}, {name})", "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            # Also what has no such label: a Prometheus of one installation needs none.
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _place_panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        position = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}
        top, left, height = top + 1, 0, 0
        for panel in panels:
            width = _WIDTH // panel.columns
            if left + width > _WIDTH:
                top, left, height = top + height, 0, 0
            number += 1
            height = _STAT_HEIGHT if panel.kind == "stat" else _HEIGHT
            yield _render_panel(panel, number, {"x": left, "y": top, "w": width, "h": height})
            left += width
        top += height


def _render_panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    is_instant = panel.kind == "stat"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "expr": query.expression,
            "legendFormat": query.legend,
            "instant": is_instant,
            "range": not is_instant,
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
        }
        for index, query in enumerate(panel.queries)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.alarm is not None:
        steps = [{"color": _GREEN, "value": None}, {"color": _RED, "value": panel.alarm}]
        if not panel.alarm:
            steps = [{"color": _RED, "value": None}, {"color": _GREEN, "value": 1}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}}
    options = {"colorMode": "background", "reduceOptions": {"calcs": ["lastNotNull"]}} if is_instant else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _DATASOURCE,
        "gridPos": position,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {**options, **panel.options},
    }
