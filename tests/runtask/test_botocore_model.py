"""Our reading of botocore's model, against botocore's own validator."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.errors import InvalidRequest
from ecs_queue.runtask.botocore_model import Shape, container_override_shape, normalize, run_task_shape, validate

BOTO_SHAPE = botocore.session.Session().get_service_model("ecs").operation_model("RunTask").input_shape
JUNK: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-5, 5) | st.just("x") | st.just([]) | st.just({})


def values_of(shape: Shape) -> st.SearchStrategy[Any]:
    """Values of a shape, every now and then with something that does not belong there."""
    if shape.kind == "structure":
        members = {name: values_of(member) for name, member in shape.members.items()}
        fixed = {name: members.pop(name) for name in shape.required}
        right: st.SearchStrategy[Any] = st.fixed_dictionaries(fixed, optional=members)
    elif shape.kind == "list" and shape.element is not None:
        right = st.lists(values_of(shape.element), max_size=2)
    elif shape.kind == "string":
        right = st.sampled_from(shape.choices or ("abc",))
    elif shape.kind == "boolean":
        right = st.booleans()
    else:
        right = st.integers(max(shape.minimum or 0, 0), min(shape.maximum or 100, 100))
    return st.integers(0, 60).flatmap(lambda n: JUNK if n == 0 else right)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(run_task_shape().members)), st.none(), max_size=3).flatmap(
        lambda keys: st.fixed_dictionaries(
            {"taskDefinition": st.just("t"), **{k: values_of(run_task_shape().members[k]) for k in keys}}
        )
    )
)
def test_what_we_accept_botocore_accepts_and_what_it_refuses_we_refuse(params: dict[str, Any]) -> None:
    refused = ParamValidator().validate(params, BOTO_SHAPE).has_errors()
    try:
        validate(params, run_task_shape(), "run_task")
        accepted = True
    except InvalidRequest:
        accepted = False
    assert not (accepted and refused)


def test_snake_case_is_brought_to_the_spelling_of_the_model() -> None:
    given_value = {"managed_ebs_volume": {"role_arn": "r", "size_in_gib": 5}, "name": "v"}
    volumes = run_task_shape().members["volumeConfigurations"]
    assert normalize([given_value], volumes, "v") == [
        {"managedEBSVolume": {"roleArn": "r", "sizeInGiB": 5}, "name": "v"}
    ]


def test_tags_must_be_spelled_as_they_are() -> None:
    with pytest.raises(InvalidRequest, match=r"tags\[0\]: unknown key 'Key'"):
        normalize({"tags": [{"Key": "a"}]}, run_task_shape(), "x")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"cpu": "512"}, r"c\.cpu: expected a whole number, found '512' \(text\)"),
        ({"cpu": True}, r"c\.cpu: expected a whole number, found True \(true/false\)"),
        ({"cpuu": 1}, r"c: unknown key 'cpuu', expected a key of .*; did you mean 'cpu'\?"),
        ({"cpu": 1, "CPU": 2}, r"c\.cpu: expected once, found in two spellings"),
        ({"environment": {"A": "1"}}, r"c\.environment: expected a list, found an object"),
        ({"environmentFiles": [{"value": "v"}]}, r"environmentFiles\[0\]: expected the key 'type'"),
        ({"resourceRequirements": [{"type": "GPUU"}]}, r"\.type: expected one of GPU, .*, found 'GPUU'"),
        ([], r"c: expected an object, found a list"),
        ({5: 1}, r"c: unknown key 5"),
    ],
)
def test_a_mistake_is_named_with_key_expectation_and_finding(value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        normalize(value, container_override_shape(), "c")


def test_the_value_of_a_variable_is_never_in_the_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        normalize({"environment": [{"name": "A", "value": 424242}]}, container_override_shape(), "c")
    assert str(caught.value) == "c.environment[0].value: expected text, found a number"


def test_limits_of_the_model_are_kept() -> None:
    strategy = run_task_shape().members["capacityProviderStrategy"]
    with pytest.raises(InvalidRequest, match=r"s\[0\]\.weight: expected at most 1000, found 1001"):
        normalize([{"capacityProvider": "a", "weight": 1001}], strategy, "s")
    with pytest.raises(InvalidRequest, match=r"tags: expected at most 50 entries, found 51"):
        normalize([{"key": "k"}] * 51, run_task_shape().members["tags"], "tags")


def test_a_required_member_may_come_from_another_layer_outside_lists() -> None:
    network = run_task_shape().members["networkConfiguration"]
    value = {"awsvpcConfiguration": {"securityGroups": ["sg"]}}
    assert normalize(value, network, "n") == value
    with pytest.raises(InvalidRequest, match="expected the key 'subnets'"):
        validate(value, network, "n")


def test_a_union_takes_exactly_one_member() -> None:
    text = Shape("string")
    union = Shape("structure", {"a": text, "b": text}, member_by_letters={"a": "a", "b": "b"}, is_union=True)
    assert normalize({"a": "x"}, union, "u") == {"a": "x"}
    for value, found in (({}, "no keys"), ({"a": "x", "b": "y"}, "the keys a, b")):
        with pytest.raises(InvalidRequest, match=f"u: expected one of a, b, found {found}"):
            normalize(value, union, "u")
