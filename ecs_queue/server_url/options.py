"""What may stand behind the `?` of a server's URL: redis-py's and Celery's options, each checked."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote_plus

from ecs_queue import durations
from ecs_queue.errors import ConfigError

#: Every spelling of `ssl_cert_reqs` in use: redis-py's, Celery's, and Python's own constants and their numbers.
_CERTIFICATE_CHECKS = {
    **dict.fromkeys(("none", "cert_none", "ssl.cert_none", "0"), "none"),
    **dict.fromkeys(("optional", "cert_optional", "ssl.cert_optional", "1"), "optional"),
    **dict.fromkeys(("required", "cert_required", "ssl.cert_required", "2"), "required"),
}
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n"), False),
}
_TLS_VERSIONS = {
    **dict.fromkeys(("1.2", "tlsv1.2", "tlsv1_2", str(int(ssl.TLSVersion.TLSv1_2))), ssl.TLSVersion.TLSv1_2),
    **dict.fromkeys(("1.3", "tlsv1.3", "tlsv1_3", str(int(ssl.TLSVersion.TLSv1_3))), ssl.TLSVersion.TLSv1_3),
}

_Parser = Callable[[str], Any]


def _choice(expected: str, values: Mapping[str, Any]) -> _Parser:
    def parse(text: str) -> Any:
        if text.lower() not in values:
            raise ConfigError(expected)
        return values[text.lower()]

    return parse


def _integer(expected: str, minimum: int) -> _Parser:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < minimum:
            raise ConfigError(expected)
        return int(text)

    return parse


def _seconds(expected: str, is_valid: Callable[[float], bool]) -> _Parser:
    def parse(text: str) -> float:
        seconds = durations.parse_duration(text)
        if seconds is None or not is_valid(seconds) or seconds > durations.MAX_SECONDS:
            raise ConfigError(expected)
        return seconds

    return parse


def _client_name(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,128}", text):  # what CLIENT SETNAME takes
        raise ConfigError("printable characters without spaces")
    return text


_time_limit = _seconds("seconds above 0", lambda seconds: seconds > 0)
_boolean = _choice("true or false", _BOOLEANS)

_TIME_LIMITS = ("socket_timeout", "socket_connect_timeout")
#: Option -> parser, for every URL.
_PARSERS: Mapping[str, _Parser] = {
    "db": _integer("the number of a database", 0),
    "username": str,
    "password": str,
    "client_name": _client_name,
    "protocol": _choice("2 or 3", {"2": 2, "3": 3}),
    "health_check_interval": _seconds("seconds, 0 or more", lambda seconds: seconds >= 0),
    **dict.fromkeys(_TIME_LIMITS, _time_limit),
    "socket_keepalive": _boolean,
    "retry_on_timeout": _boolean,
    "max_connections": _integer("a whole number of 1 or more", 1),
    "ssl": _boolean,
    "tls": _boolean,
    "ssl_cert_reqs": _choice("required, optional or none", _CERTIFICATE_CHECKS),
    "ssl_check_hostname": _boolean,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_ca_data": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_ciphers": str,
    "ssl_min_version": _choice("1.2 or 1.3", _TLS_VERSIONS),
    "service": str,
    "sentinel_username": str,
    "sentinel_password": str,
}
#: Other names of the same options: Celery's, kombu's, and those of other languages' clients.
_SYNONYMS = {
    "virtual_host": "db",
    "database": "db",
    "master_name": "service",
    "service_name": "service",
    "name": "client_name",
    "user": "username",
}
#: Options of other programs that are a configuration key here, or have no meaning; what to do instead.
_ADVICE = {
    "visibility_timeout": "set visibility_timeout in [ecs_queue]",
    "credential_provider": "set broker_iam or ledger_iam for IAM",
    "sentinel_kwargs": "write sentinel_username and sentinel_password",
    "global_keyprefix": "set namespace in [ecs_queue]",
    "cluster": "begin the URL with redis+cluster:// or rediss+cluster://",
}


def parse_options(query: str) -> dict[str, Any]:
    """Return the options with their values, as redis-py's connections take them, and those that are for us.

    Args:
        query: What stands behind the `?`.

    Raises:
        ConfigError: An option is unknown, has no value, is given twice or has a wrong value. The option is named, and
            its value is not shown.
    """
    found: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        written, _, text = pair.partition("=")
        name = unquote_plus(written)
        option = _SYNONYMS.get(name, name)
        parse = _PARSERS.get(option)
        if parse is None:
            raise ConfigError(_unknown_option(name))
        if option in found:
            raise ConfigError(f"the option {name!r} after the ? is given twice")
        if not text:
            raise ConfigError(f"the option {name!r} after the ? has no value; leave it out or give it one")
        try:
            found[option] = parse(unquote_plus(text))
        except ConfigError as error:
            raise ConfigError(f"the option {name!r} after the ? has a wrong value: expected {error}") from None
    found.pop("retry_on_timeout", None)  # a call is repeated once in any case
    return found


def shorten_limits(query: str, seconds: float) -> str:
    """Return options that `parse_options` accepts, none of whose time limits is longer than `seconds`."""

    def limit(pair: str) -> str:
        name, _, text = pair.partition("=")
        is_longer = unquote_plus(name) in _TIME_LIMITS and _time_limit(unquote_plus(text)) > seconds
        return f"{name}={seconds}" if is_longer else pair

    return "&".join(limit(pair) for pair in query.split("&"))


def _unknown_option(name: str) -> str:
    if name in _ADVICE:
        return f"the option {name!r} after the ? is not used here: {_ADVICE[name]}"
    if not re.fullmatch(r"[A-Za-z_]{1,40}", name):  # it may be a part of a password
        return "what stands after the ? is not NAME=VALUE&NAME=VALUE; in a password write ? as %3F and & as %26"
    near = get_close_matches(name, _PARSERS, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_PARSERS)}"
    return f"the option {name!r} after the ? is unknown; {advice}"
