"""Keys and booleans in their spellings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.errors import ConfigError
from ecs_queue.runtask.casing import camelize_dict_keys, parse_assign_public_ip, parse_bool

KEYS = st.text() | st.from_regex(r"\A[a-zA-Z_]{1,12}\Z")
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def test_keys_become_camel_case_at_every_depth() -> None:
    nested = {"network_configuration": {"awsvpc_configuration": {"security_groups": ["sg_a"]}}}
    assert camelize_dict_keys(nested) == {"networkConfiguration": {"awsvpcConfiguration": {"securityGroups": ["sg_a"]}}}


def test_dictionaries_in_lists_are_converted_too() -> None:
    nested = {"overrides": {"container_overrides": [{"memory_reservation": 5}, [{"a_b": 1}], "a_b"]}}
    assert camelize_dict_keys(nested) == {
        "overrides": {"containerOverrides": [{"memoryReservation": 5}, [{"aB": 1}], "a_b"]}
    }


@pytest.mark.parametrize("key", ["tags", "Tags", "TAGS"])
def test_what_stands_under_tags_stays(key: str) -> None:
    tags = {"my_tag": {"inner_key": 1}}
    (converted,) = camelize_dict_keys({key: tags}).values()
    assert converted == tags
    assert camelize_dict_keys({"tags": [{"my_key": 1}]}) == {"tags": [{"my_key": 1}]}


def test_keys_already_in_camel_case_stay() -> None:
    given_keys = {"containerOverrides": 1, "enableECSManagedTags": 2, "cpu": 3}
    assert camelize_dict_keys(given_keys) == given_keys


def test_an_environment_keeps_its_names_and_values() -> None:
    nested = {"environment": [{"name": "MY_VAR", "value": "some_value"}]}
    assert camelize_dict_keys(nested) == nested


@pytest.mark.parametrize("key", ["", "_x", "my-key", "ß_x", 5, None])
def test_keys_that_are_no_plain_names_stay(key: Any) -> None:
    assert camelize_dict_keys({key: 1}) == {key: 1}


@settings(deadline=None)
@given(TREES)
def test_converting_again_changes_nothing(tree: dict[str, Any]) -> None:
    once = camelize_dict_keys(tree)
    assert camelize_dict_keys(once) == once


@pytest.mark.parametrize("value", [True, "True", "true", "TRUE", " yes ", "1", 1, "on", "t", "ENABLED"])
def test_every_usual_true_enables_the_public_ip(value: object) -> None:
    assert parse_assign_public_ip(value) == "ENABLED"


@pytest.mark.parametrize("value", [False, "False", "false", "no", "0", 0, "off", "n", None, "", "disabled"])
def test_every_usual_false_disables_the_public_ip(value: object) -> None:
    assert parse_assign_public_ip(value, is_launch_type_ec2=False) == "DISABLED"


@pytest.mark.parametrize("value", [True, "False", "nonsense"])
def test_ec2_takes_no_public_ip_argument(value: object) -> None:
    assert parse_assign_public_ip(value, is_launch_type_ec2=True) is None


def test_what_is_no_boolean_is_refused_with_its_value() -> None:
    with pytest.raises(ConfigError, match=r"assign_public_ip: expected True or False, found 'maybe'"):
        parse_assign_public_ip("maybe")
    assert parse_bool("maybe") is None
