"""From the text of a configuration value to its type.

Each parser raises ConfigError("expected ..., found ...").
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

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
_ROLE_ARN = re.compile(r"arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+")


def invalid_value(expected: str, text: str) -> ConfigError:
    """The error for a value that is not what was expected; a URL's password is not shown."""
    shown = redact_url(text)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ConfigError(f"expected {expected}, found {shown!r}")


def text(value: str) -> str:
    """Any text."""
    return value


def integer(minimum: int) -> Parser:
    """A whole number, at least `least`."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise invalid_value(f"a whole number >= {minimum}", value) from None
        if number < minimum:
            raise invalid_value(f"a whole number >= {minimum}", value)
        return number

    return parse


def number(minimum: float, unit: str = "seconds") -> Parser:
    """A finite number of `unit`, at least `least`; `least` = 0 allows 0."""

    def parse(value: str) -> float:
        expected = f"a number of {unit} >= {minimum:g}"
        try:
            found = float(value)
        except ValueError:
            raise invalid_value(expected, value) from None
        if not math.isfinite(found) or found < minimum:
            raise invalid_value(expected, value)
        return found

    return parse


def positive_seconds(value: str) -> float:
    """A finite number of seconds above 0."""
    try:
        found = float(value)
    except ValueError:
        raise invalid_value("a number of seconds above 0", value) from None
    if not math.isfinite(found) or found <= 0:
        raise invalid_value("a number of seconds above 0", value)
    return found


def boolean(value: str) -> bool:
    """True or False in any usual spelling."""
    found = parse_bool(value)
    if found is None:
        raise invalid_value("True or False", value)
    return found


def one_of(*choices: str) -> Parser:
    """One of a few words, in lower case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise invalid_value(f"one of {', '.join(choices)}", value)
        return value.lower()

    return parse


def matching(pattern: str, expected: str) -> Parser:
    """Text that matches as a whole."""
    compiled = re.compile(pattern)

    def parse(value: str) -> str:
        if not compiled.fullmatch(value):
            raise invalid_value(expected, value)
        return value

    return parse


def store_url(value: str) -> str:
    """The URL of a broker or a ledger: redis://, rediss:// or memory://."""
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
        place = parts.netloc.rpartition("@")[2]
        host = re.sub(r":\d*$", "", place)
        is_valid = parts.port != 0  # urlsplit looks at the port only when asked, and raises then
    except ValueError:
        is_valid, host, place = False, "", ""
    if not (is_valid and place and _HOST.fullmatch(host)):
        raise invalid_value(f"{expected}, special characters of the password percent-encoded", value)
    database = parts.path.strip("/")
    if not re.fullmatch(r"[0-9]*", database):
        raise invalid_value(f"{expected} with a database number", value)


def http_url(value: str) -> str:
    """An http or https URL."""
    expected = "a URL such as http://127.0.0.1:4566"
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise invalid_value(expected, value)
    return value


def queue_url(value: str) -> str:
    """The URL of an SQS queue; a password has no place in it."""
    parts = urlsplit(http_url(value))
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.path.strip("/"):
        raise invalid_value("a URL such as https://sqs.eu-west-1.amazonaws.com/123456789012/ecs-queue-events", value)
    return value


def role_arn(value: str) -> str:
    """The ARN of an IAM role."""
    if not _ROLE_ARN.fullmatch(value):
        raise invalid_value("an ARN such as arn:aws:iam::123456789012:role/NAME", value)
    return value


def launch_type(value: str) -> str:
    """A launch type that botocore's model of run_task knows, in capitals."""
    choices = run_task_shape().members["launchType"].choices
    if value.upper() not in choices:
        raise invalid_value(f"one of {', '.join(choices)}", value)
    return value.upper()


def text_list(value: str) -> tuple[str, ...]:
    """Texts separated by commas, or a JSON list of texts."""
    if not value.lstrip().startswith("["):
        return tuple(item for item in map(str.strip, value.split(",")) if item)
    items = json_value(list, "texts separated by commas or a JSON list of texts")(value)
    if not all(isinstance(item, str) and item for item in items):
        raise invalid_value("texts separated by commas or a JSON list of texts", value)
    return tuple(items)


def override_names(value: str) -> tuple[str, ...]:
    """Names of overrides, `*` or `none`; separated by commas, or a JSON list."""
    return parse_allowed_overrides(text_list(value))


def json_value(json_type: type, expected: str) -> Parser:
    """JSON of one kind. The value is never shown: it may hold an environment."""

    def parse(value: str) -> Any:
        try:
            found = json.loads(value)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise ConfigError(f"expected {expected}, found text that is no JSON ({where})") from None
        except RecursionError:
            raise ConfigError(f"expected {expected}, found JSON that is nested too deep") from None
        if not isinstance(found, json_type):
            raise ConfigError(f"expected {expected}, found JSON of another kind ({type(found).__name__})")
        return found

    return parse


_SIGNING_KEY = re.compile(r"([A-Za-z0-9_.-]{1,32}):(\S{32,})")


def signing_keys(value: str) -> tuple[SigningKey, ...]:
    """`ID:SECRET`, separated by commas. The key is the bytes of SECRET as it stands. No value is ever shown."""
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
    """Fernet keys, separated by commas. No value is ever shown."""
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
