"""The laws of merging run_task arguments."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.runtask.merge import merge_run_task

NAMES = st.sampled_from(["main", "side", "third"])
ENVIRONMENTS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("ABC"), "value": st.text(max_size=3)}),
    unique_by=lambda entry: entry["name"],
    max_size=3,
)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={
            "cpu": st.integers(1, 9),
            "environment": ENVIRONMENTS,
            "command": st.lists(st.text(max_size=2)),
        },
    ),
    unique_by=lambda entry: entry["name"],
    max_size=3,
)
TAGS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(lambda key, value: {"key": key, "value": value}, st.sampled_from(["k", "l"]), st.text(max_size=2)),
    unique_by=lambda tag: str(tag["key"]),
)
LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "overrides": st.fixed_dictionaries(
            {}, optional={"cpu": st.sampled_from(["256", "512"]), "containerOverrides": CONTAINERS}
        ),
        "tags": TAGS,
        "placementConstraints": st.lists(st.fixed_dictionaries({"type": st.sampled_from("kl")})),
        "group": st.text(max_size=3),
    },
)
Layer = dict[str, Any]


@settings(deadline=None)
@given(LAYERS)
def test_merging_with_nothing_or_with_itself_changes_nothing(layer: Layer) -> None:
    assert merge_run_task(layer, {}) == layer == merge_run_task({}, layer) == merge_run_task(layer, layer)


@settings(deadline=None)
@given(LAYERS, LAYERS, LAYERS)
def test_the_grouping_of_layers_does_not_matter(a: Layer, b: Layer, c: Layer) -> None:
    assert merge_run_task(merge_run_task(a, b), c) == merge_run_task(a, merge_run_task(b, c))


@settings(deadline=None)
@given(LAYERS, LAYERS)
def test_neither_layer_is_changed_or_shared(a: Layer, b: Layer) -> None:
    before = copy.deepcopy((a, b))
    merged = merge_run_task(a, b)
    for container in merged.get("overrides", {}).get("containerOverrides", []):
        container.setdefault("environment", []).append({"name": "Z", "value": "z"})
    merged.setdefault("tags", []).append({"key": "z"})
    assert (a, b) == before


@settings(deadline=None)
@given(LAYERS, LAYERS)
def test_every_variable_of_the_upper_layer_is_in_the_result(a: Layer, b: Layer) -> None:
    merged = merge_run_task(a, b)
    for container in b.get("overrides", {}).get("containerOverrides", []):
        found = {c["name"]: c for c in merged["overrides"]["containerOverrides"]}[container["name"]]
        for variable in container.get("environment", []):
            assert variable in found["environment"]


def test_named_lists_are_merged_by_name_and_other_lists_are_replaced() -> None:
    base = {
        "tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "1"}],
        "placementConstraints": [{"type": "memberOf", "expression": "a"}],
        "volumeConfigurations": [{"name": "v", "managedEBSVolume": {"roleArn": "r", "sizeInGiB": 1}}],
        "overrides": {
            "containerOverrides": [{"name": "main", "environment": [{"name": "A", "value": "1"}, {"name": "B"}]}]
        },
    }
    over = {
        "tags": [{"key": "b", "value": "2"}],
        "placementConstraints": [{"type": "distinctInstance"}],
        "volumeConfigurations": [{"name": "v", "managedEBSVolume": {"sizeInGiB": 2}}],
        "overrides": {
            "containerOverrides": [
                {"name": "side", "cpu": 5},
                {"name": "main", "environment": [{"name": "A", "value": "2"}, {"name": "C", "value": "3"}]},
            ]
        },
    }
    environment = [{"name": "A", "value": "2"}, {"name": "B"}, {"name": "C", "value": "3"}]
    assert merge_run_task(base, over) == {
        "tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}],
        "placementConstraints": [{"type": "distinctInstance"}],
        "volumeConfigurations": [{"name": "v", "managedEBSVolume": {"roleArn": "r", "sizeInGiB": 2}}],
        "overrides": {"containerOverrides": [{"name": "main", "environment": environment}, {"name": "side", "cpu": 5}]},
    }
