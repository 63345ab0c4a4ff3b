"""Validation of parameters, compared with botocore's own validator where that has the check."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.local.ecs.aws_json import ApiError
from ecs_queue.local.ecs.validation import ParameterValidator
from tests.local.ecs.checked_client import service_model

RUN_TASK = service_model().operation_model("RunTask").input_shape
SHAPES = ParameterValidator(["RunTask", "ListTasks", "RegisterTaskDefinition"])

values: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-5, 70000) | st.text(max_size=3) | st.floats(0, 9, allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["containerOverrides", "name", "command", "environment", "value", "cpu", "subnets", "key"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
members = st.sampled_from(
    ["taskDefinition", "overrides", "count", "tags", "startedBy", "enableExecuteCommand", "cluster", "nonsense"]
)


def _accepts(parameters: dict[str, Any]) -> bool:
    try:
        SHAPES.validate("RunTask", parameters)
    except ApiError:
        return False
    return True


@given(st.dictionaries(members, values, max_size=4), st.booleans())
def test_it_refuses_what_botocore_refuses(parameters: dict[str, Any], complete: bool) -> None:
    if complete:
        parameters["taskDefinition"] = "local"
    if ParamValidator().validate(parameters, RUN_TASK).has_errors():
        assert not _accepts(parameters)


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("count", "3", "count: expected a whole number from -2147483648 to 2147483647, found '3'"),
        ("count", True, "count: expected a whole number"),
        ("count", 2**31, "count: expected a whole number"),
        ("cluster", 3, "cluster: expected a string, found 3"),
        ("cluster", None, "cluster: expected a string, found None"),
        ("enableExecuteCommand", "yes", "enableExecuteCommand: expected true or false"),
        ("launchType", "EC3", "launchType: expected one of EC2, "),
        ("tags", {}, "tags: expected a list, found dict"),
        ("tags", [{"key": ""}], "tags[0].key: expected at least 1 characters"),
        ("tags", [{"key": "k", "value": "x" * 257}], "tags[0].value: expected at most 256 characters"),
        ("tags", [{}, {"name": "k"}], "tags[1]: expected one of key, value, found 'name'"),
        ("overrides", [], "overrides: expected an object, found list"),
        ("networkConfiguration", {"awsvpcConfiguration": {}}, "the required member subnets"),
        (
            "capacityProviderStrategy",
            [{"capacityProvider": "x", "weight": 1001}],
            "weight: expected a whole number from 0",
        ),
        ("extra", 1, "the request: expected one of capacityProviderStrategy, "),
    ],
)
def test_the_message_names_member_expected_and_found(member: str, value: Any, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        SHAPES.validate("RunTask", {"taskDefinition": "local", member: value})
    assert message in caught.value.message
    assert caught.value.code == "InvalidParameterException"
    assert len(caught.value.message) < 600


def test_maps_are_checked_by_key_and_value() -> None:
    container = {"name": "a", "image": "b", "dockerLabels": {"label": 3}}
    with pytest.raises(ApiError, match=r"containerDefinitions\[0\].dockerLabels.label: expected a string"):
        SHAPES.validate("RegisterTaskDefinition", {"family": "f", "containerDefinitions": [container]})
