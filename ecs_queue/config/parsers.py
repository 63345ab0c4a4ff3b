"""Parsers from the text of a configuration value to its type.

Each parser raises ConfigError("expected ..., found ...").
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ecs_queue import durations
from ecs_queue.broker_url import BROKER_SCHEMES, check_broker_url, holds_no_records
from ecs_queue.config.prices import Price, parse_prices
from ecs_queue.config.redact import redact_url
from ecs_queue.error_text import error_text
from ecs_queue.errors import ConfigError
from ecs_queue.messages.keyring import SigningKey
from ecs_queue.messages.labels import NAME_RULE, check_labels, check_name
from ecs_queue.messages.retry_rules import parse_retry_rules
from ecs_queue.protocol.record import RESERVED_NAMES
from ecs_queue.protocol.retry_rules import RetryRule
from ecs_queue.runtask.botocore_model import run_task_shape
from ecs_queue.runtask.capacity_variants import CapacityVariant, parse_variants
from ecs_queue.runtask.casing import parse_bool
from ecs_queue.runtask.overrides import parse_allowed_overrides
from ecs_queue.server_url import is_server_url, parse_server_url

Parser = Callable[[str], Any]


def invalid_value(expected: str, text: str) -> ConfigError:
    """Return the error for a value that is not what was expected; it does not show the password of a URL."""
    shown = redact_url(text)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ConfigError(f"expected {expected}, found {shown!r}")


def text(value: str) -> str:
    """Accept any text."""
    return value


def integer(minimum: int, maximum: int = int(durations.MAX_NUMBER)) -> Parser:
    """Return a parser of whole numbers from `minimum` to `maximum`."""
    return partial(_parse_number, int, minimum, maximum, f"a whole number >= {minimum}")


def number(minimum: float, unit: str = "seconds") -> Parser:
    """Return a parser of finite numbers of `unit` >= `minimum`; seconds may be any duration."""
    if unit == "seconds":
        return partial(_parse_seconds, lambda found: found >= minimum, f"a duration >= {minimum:g} s")
    return partial(_parse_number, float, minimum, durations.MAX_NUMBER, f"a number of {unit} >= {minimum:g}")


def positive_seconds(value: str) -> float:
    """Parse a duration above 0."""
    return _parse_seconds(lambda found: found > 0, "a duration above 0", value)


def _parse_seconds(is_valid: Callable[[float], bool], expected: str, value: str) -> float:
    seconds = durations.parse_duration(value)
    if seconds is None or seconds > durations.MAX_SECONDS or not is_valid(seconds):
        raise invalid_value(f"{expected}, such as {durations.EXAMPLES}", value)
    return seconds


def _parse_number(convert: Callable[[str], float], minimum: float, maximum: float, expected: str, value: str) -> float:
    try:
        found = convert(value)
    except ValueError:
        raise invalid_value(expected, value) from None
    if found > maximum:
        raise invalid_value(f"{expected} and <= {maximum:.0f}", value)
    if not found >= minimum:  # a NaN is not
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
    """Parse the URL of a broker or a ledger: memory://, or one that `server_url` reads."""
    expected = "a URL such as redis://:PASSWORD@HOST:6379/0 or memory://"
    scheme, separator, rest = value.partition("://")
    scheme = scheme.lower()
    if holds_no_records(value):
        raise ConfigError(f"{invalid_value(expected, value)}; {scheme}:// carries messages and holds no records")
    url = f"{scheme}{separator}{rest}"
    if scheme != "memory" or not separator:
        try:
            parse_server_url(url)
        except ConfigError as error:
            raise ConfigError(f"{invalid_value(expected, value)}: {error}") from None
    return url


def broker_url(value: str) -> str:
    """Parse the URL of a broker: amqp://, amqps:// or sqs://, or that of a store."""
    if not holds_no_records(value):
        try:
            return store_url(value)
        except ConfigError as error:
            if is_server_url(value):
                raise
            raise ConfigError(f"{error}; a broker's may also be {', '.join(BROKER_SCHEMES)}") from None
    try:
        check_broker_url(value)
    except ConfigError as error:
        raise ConfigError(f"{invalid_value('a URL of RabbitMQ or SQS', value)}: {error}") from None
    return value


def retry_rules(value: str) -> tuple[RetryRule, ...]:
    """Parse a JSON list of retry rules."""
    found = json_value(list, "a JSON list of retry rules")(value)
    try:
        return parse_retry_rules(found)
    except ValueError as error:
        raise ConfigError(error_text(error)) from None


def capacity_fallback(value: str) -> tuple[CapacityVariant, ...]:
    """Parse a JSON list of variants of the capacity."""
    found = json_value(list, "a JSON list of variants")(value)
    try:
        variants = parse_variants(found)
        return tuple(
            msgspec.structs.replace(each, launch_type=launch_type(each.launch_type)) if each.launch_type else each
            for each in variants
        )
    except ValueError as error:
        raise ConfigError(error_text(error)) from None


def prices(value: str) -> tuple[Price, ...]:
    """Parse a JSON object of prices."""
    try:
        return parse_prices(json_value(dict, "a JSON object of prices")(value))
    except ValueError as error:
        raise ConfigError(error_text(error)) from None


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


#: What Airflow's executor knows of a task.
AIRFLOW_LABELS = ("dag_id", "task_id", "run_id", "map_index", "team")


def person_name(value: str) -> str:
    """Parse the name of a person or program."""
    try:
        check_name(value)
    except ValueError:
        raise invalid_value(f"1 to {NAME_RULE}", value) from None
    if value in RESERVED_NAMES:
        raise invalid_value(f"another name than {', '.join(sorted(RESERVED_NAMES))}", value)
    return value


def label_names(value: str) -> tuple[str, ...]:
    """Parse the keys of labels, or `*`, separated by commas, or a JSON list."""
    names = text_list(value)
    try:
        check_labels(dict.fromkeys((name for name in names if name != "*"), ""))
    except ValueError:
        raise invalid_value("names that a tag of AWS may have, or *", value) from None
    return names


def airflow_labels(value: str) -> tuple[str, ...]:
    """Parse names of what Airflow's executor knows of a task, separated by commas."""
    names = text_list(value)
    if not set(names) <= set(AIRFLOW_LABELS):
        raise invalid_value(f"some of {', '.join(AIRFLOW_LABELS)}", value)
    return names


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
            pass  # neither form; JSON's own error below names the place
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
