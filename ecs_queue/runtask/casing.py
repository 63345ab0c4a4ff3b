"""How values and keys are spelled: booleans in configuration, keys in run_task's arguments."""

from __future__ import annotations

import re
from typing import Any

import inflection

from ecs_queue.errors import ConfigError

#: The usual spellings of a boolean; configparser's, and those that AWS and YAML users write.
TRUE_WORDS = frozenset({"true", "1", "yes", "y", "on", "t", "enabled"})
FALSE_WORDS = frozenset({"false", "0", "no", "n", "off", "f", "disabled"})

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


def parse_bool(value: object) -> bool | None:
    """True or False in any usual spelling; None when it is neither."""
    word = str(value).strip().lower()
    if word in TRUE_WORDS:
        return True
    return False if word in FALSE_WORDS else None


def parse_assign_public_ip(assign_public_ip: object, is_launch_type_ec2: bool = False) -> str | None:
    """Convert "assign_public_ip" from True/False to ENABLED/DISABLED.

    None or an empty text is False. Returns None for the launch type EC2, where run_task takes no such
    argument. ConfigError for what is no boolean.
    """
    if is_launch_type_ec2:
        return None
    if assign_public_ip is None or assign_public_ip == "":
        return "DISABLED"
    flag = parse_bool(assign_public_ip)
    if flag is None:
        raise ConfigError(f"assign_public_ip: expected True or False, found {assign_public_ip!r}")
    return "ENABLED" if flag else "DISABLED"


def camelize_dict_keys(nested_dict: dict[Any, Any]) -> dict[Any, Any]:
    """Accept a potentially nested dictionary and recursively convert all keys into camelCase.

    Lists of dictionaries too. What stands under `tags` stays as it is: it is the user's own. Keys that are
    no plain names (`my-key`, `_x`, numbers) stay; values are never changed. Doing it again changes nothing.
    A new dictionary is returned; what is not converted is shared with the old one.
    """
    result = {}
    for key, value in nested_dict.items():
        new_key = _camelize_key(key)
        is_tags = isinstance(new_key, str) and new_key.lower() == "tags"
        result[new_key] = value if is_tags else _camelize_value(value)
    return result


def _camelize_value(value: Any) -> Any:
    if isinstance(value, dict):
        return camelize_dict_keys(value)
    if isinstance(value, list):
        return [_camelize_value(item) for item in value]
    return value


def _camelize_key(key: Any) -> Any:
    """One key in camelCase. inflection alone would lose the name of `_x` and needs two rounds for `a__b`."""
    if not isinstance(key, str) or not _PLAIN_NAME.fullmatch(key):
        return key
    while (camel := inflection.camelize(key, uppercase_first_letter=False)) != key:
        key = camel
    return key
