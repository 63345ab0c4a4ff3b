"""Parsers from the text of a configuration value to its type.

Each parser raises ConfigError("expected ..., found ...").
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ecs_queue import durations
from ecs_queue.config.redact import redact_url
from ecs_queue.errors import ConfigError
from ecs_queue.messages.keyring import SigningKey
from ecs_queue.runtask.botocore_model import run_task_shape
from ecs_queue.runtask.casing import parse_bool
from ecs_queue.runtask.overrides import parse_allowed_overrides

Parser = Callable[[str], Any]

#: URL schemes of the broker and the ledger.
URL_SCHEMES = ("redis", "rediss", "memory")
_UNSUPPORTED_SCHEMES = ("amqp", "amqps", "sqs", "sentinel", "redis+socket")
_HOST = re.compile(r"[A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.%]+\]")


def invalid_value(expected: str, text: str) -> ConfigError:
    """Return the error for a value that is not what was expected; it does not show the password of a URL."""
    shown = redact_url(text)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ConfigError(f"expected {expected}, found {shown!r}")


def text(value: str) -> str:
    """Accept any text."""
    return value


def integer(minimum: int) -> Parser:
    """Return a parser of whole numbers >= `minimum`."""
    return partial(_parse_number, int, lambda found: found >= minimum, f"a whole number >= {minimum}")


def number(minimum: float, unit: str = "seconds") -> Parser:
    """Return a parser of finite numbers of `unit` >= `minimum`; seconds may be any duration."""
    if unit == "seconds":
        return partial(_parse_seconds, lambda found: found >= minimum, f"a duration >= {minimum:g} s")
    return partial(_parse_number, float, lambda found: found >= minimum, f"a number of {unit} >= {minimum:g}")


def positive_seconds(value: str) -> float:
    """Parse a duration above 0."""
    return _parse_seconds(lambda found: found > 0, "a duration above 0", value)


def _parse_seconds(is_valid: Callable[[float], bool], expected: str, value: str) -> float:
    seconds = durations.parse_duration(value)
    if seconds is None or not is_valid(seconds):
        raise invalid_value(f"{expected}, such as {durations.EXAMPLES}", value)
    return seconds


def _parse_number(
    convert: Callable[[str], float], is_valid: Callable[[float], bool], expected: str, value: str
) -> float:
    try:
        found = convert(value)
    except ValueError:
        raise invalid_value(expected, value) from None
    if not math.isfinite(found) or not is_valid(found):
        raise invalid_value(expected, value)
    return found


def boolean(value: str) -> bool:
    """Parse True or False in any usual spelling."""
    found = parse_bool(value)
    if found is None:
        raise invalid_value("True or False", value)
    return found


def one_of(*choices: str) -> Parser:
    """Return a parser of the given words, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise invalid_value(f"one of {', '.join(choices)}", value)
        return value.lower()

    return parse


def matching(pattern: str, expected: str) -> Parser:
    """Return a parser of text that matches `pattern` completely."""
    compiled = re.compile(pattern)

    def parse(value: str) -> str:
        if not compiled.fullmatch(value):
            raise invalid_value(expected, value)
        return value

    return parse


def store_url(value: str) -> str:
    """Parse the URL of a broker or a ledger: redis://, rediss:// or memory://."""
    expected = "a URL such as redis://:PASSWORD@HOST:6379/0 (redis, rediss or memory)"
    scheme = value.partition("://")[0].lower()
    if scheme in _UNSUPPORTED_SCHEMES and "://" in value:
        raise ConfigError(f"{invalid_value(expected, value)}; {scheme} is not supported in this version")
    if scheme not in URL_SCHEMES or "://" not in value:
        raise invalid_value(expected, value)
    if scheme != "memory":
        _check_redis_url(value, expected)
    return value


def _check_redis_url(value: str, expected: str) -> None:
    try:
        parts = urlsplit(value)
        host_and_port = parts.netloc.rpartition("@")[2]
        is_valid = parts.port != 0  # urlsplit checks the port only here, and raises
    except ValueError:
        is_valid, host_and_port = False, ""
    if not (is_valid and host_and_port and _HOST.fullmatch(re.sub(r":\d*$", "", host_and_port))):
        raise invalid_value(f"{expected}, special characters of the password percent-encoded", value)
    if not re.fullmatch(r"[0-9]*", parts.path.strip("/")):
        raise invalid_value(f"{expected} with a database number", value)


def http_url(value: str) -> str:
    """Parse an http or https URL."""
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise invalid_value("a URL such as http://127.0.0.1:4566", value)
    return value


def queue_url(value: str) -> str:
    """Parse the URL of an SQS queue, which has no user, query or fragment."""
    parts = urlsplit(http_url(value))
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.path.strip("/"):
        raise invalid_value("a URL such as https://sqs.eu-west-1.amazonaws.com/123456789012/ecs-queue-events", value)
    return value


#: Parses the ARN of an IAM role.
role_arn = matching(r"arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+", "an ARN such as arn:aws:iam::123456789012:role/NAME")


def launch_type(value: str) -> str:
    """Parse a launch type of botocore's run_task model, in any case."""
    choices = run_task_shape().members["launchType"].choices
    if value.upper() not in choices:
        raise invalid_value(f"one of {', '.join(choices)}", value)
    return value.upper()


def text_list(value: str) -> tuple[str, ...]:
    """Parse texts separated by commas, or a JSON list of texts."""
    if not value.lstrip().startswith("["):
        return tuple(item for item in map(str.strip, value.split(",")) if item)
    items = json_value(list, "texts separated by commas or a JSON list of texts")(value)
    if not all(isinstance(item, str) and item for item in items):
        raise invalid_value("texts separated by commas or a JSON list of texts", value)
    return tuple(items)


def override_names(value: str) -> tuple[str, ...]:
    """Parse names of overrides, `*` or `none`, separated by commas, or a JSON list."""
    return parse_allowed_overrides(text_list(value))


def _load_json(value: str) -> Any:
    """Return the JSON value; also of a Python literal, the single-quoted form of the upstream documentation."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        try:
            return json.loads(json.dumps(ast.literal_eval(value), allow_nan=False))
        except (ValueError, TypeError, SyntaxError, MemoryError):
            pass
        raise


def json_value(json_type: type, expected: str) -> Parser:
    """Return a parser of JSON of one type. Its errors never show the value, which may hold an environment."""

    def parse(value: str) -> Any:
        try:
            found = _load_json(value)
        except json.JSONDecodeError as error:
            position = f"line {error.lineno}, column {error.colno}"
            raise ConfigError(f"expected {expected}, found text that is not JSON ({position})") from None
        except RecursionError:
            raise ConfigError(f"expected {expected}, found JSON that is nested too deep") from None
        if not isinstance(found, json_type):
            raise ConfigError(f"expected {expected}, found JSON of another type ({type(found).__name__})")
        return found

    return parse


_SIGNING_KEY = re.compile(r"([A-Za-z0-9_.-]{1,32}):(\S{32,})")


def signing_keys(value: str) -> tuple[SigningKey, ...]:
    """Parse `ID:SECRET`, separated by commas. The key is the bytes of SECRET. Errors never show a value."""
    expected = (
        "ID:SECRET, separated by commas, ID of 1 to 32 of A-Z a-z 0-9 _ . -, SECRET of 32 characters or more "
        "(openssl rand -hex 32)"
    )
    found: dict[str, SigningKey] = {}
    for position, item in enumerate(value.split(","), 1):
        match = _SIGNING_KEY.fullmatch(item.strip())
        if match is None:
            raise ConfigError(f"expected {expected}, found something else as key {position} (it is not shown)")
        if match[1] in found:
            raise ConfigError(f"expected {expected}, found the ID {match[1]!r} twice")
        found[match[1]] = SigningKey(match[1], match[2].encode())
    return tuple(found.values())


def encryption_keys(value: str) -> tuple[str, ...]:
    """Parse Fernet keys, separated by commas. Errors never show a value."""
    items = [item.strip() for item in value.split(",")]
    for position, item in enumerate(items, 1):
        try:
            is_key = len(base64.b64decode(item, altchars=b"-_", validate=True)) == 32
        except (binascii.Error, ValueError):
            is_key = False
        if not is_key:
            raise ConfigError(
                "expected Fernet keys separated by commas, each 32 bytes in URL-safe base64 (openssl rand -base64 32 | "
                f"tr +/ -_), found something else as key {position} (it is not shown)"
            )
    return tuple(items)
