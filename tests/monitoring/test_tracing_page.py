"""docs/tracing.md names the spans and the attributes that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import (
    aws_attributes,
    cloud_attributes,
    error_attributes,
    messaging_attributes,
    process_attributes,
)

from ecs_queue.monitoring.span_attributes import ATTRIBUTES
from ecs_queue.monitoring.spans import ATTEMPT_SPANS

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([\w.]+)` \| (.+) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("table", [ATTEMPT_SPANS, ATTRIBUTES], ids=["spans", "attributes"])
def test_the_page_has_each_with_what_it_is(table: dict[str, str]) -> None:
    assert {name: ROWS.get(name) for name in table} == table


def test_the_page_has_no_other() -> None:
    assert set(ROWS) == {*ATTEMPT_SPANS, *ATTRIBUTES}


def test_the_attributes_are_those_of_the_semantic_conventions() -> None:
    modules = (aws_attributes, cloud_attributes, error_attributes, messaging_attributes, process_attributes)
    known = {value for module in modules for name, value in vars(module).items() if name.isupper()}
    assert {name for name in ATTRIBUTES if not name.startswith("ecs_queue.")} <= known
