"""The spellings of booleans in the configuration and of keys in run_task's arguments."""

from __future__ import annotations

import re
from typing import Any

import inflection

from ecs_queue.errors import ConfigError

#: The usual spellings of a boolean: those of configparser, and those that AWS and YAML users write.
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "y", "on", "t", "enabled"), True),
    **dict.fromkeys(("false", "0", "no", "n", "off", "f", "disabled"), False),
}

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


def parse_bool(value: object) -> bool | None:
    """Return the boolean that `value` means in any usual spelling; None if it means none."""
    return _BOOLEANS.get(str(value).strip().lower())


def parse_assign_public_ip(assign_public_ip: object, is_launch_type_ec2: bool = False) -> str | None:
    """Convert "assign_public_ip" from True/False to ENABLED/DISABLED.

    None and an empty text mean False. Returns None for the launch type EC2, for which run_task takes no such argument.
    Raises ConfigError for any other value that is not a boolean.
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

    Dictionaries in lists are converted too. The user's own keys below `tags`, keys that are no plain names (`my-key`,
    `_x`, numbers) and values stay unchanged. A second conversion changes nothing. The result is a new dictionary that
    shares unconverted parts with the old one.
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
    """One key in camelCase. inflection alone would lose the name of `_x`, and `a__b` needs two rounds."""
    if not isinstance(key, str) or not _PLAIN_NAME.fullmatch(key):
        return key
    while (camel := inflection.camelize(key, uppercase_first_letter=False)) != key:
        key = camel
    return key
