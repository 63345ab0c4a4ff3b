"""Redacts configuration values for display: passwords and values of environment variables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

REDACTED = "***"

_SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|credential|signature|cookie|jwt|webhook|airflow_conn_|(^|[_-])auth"
    r"|(^|[_-])keys?($|[_-]id$)|(api|access|private|account)_?keys?",
    re.IGNORECASE,
)
#: Keys whose value names a person, perhaps by a mail address, which has no password before its `@`.
_NAME_KEYS = frozenset({"acting_user"})
# A value ends at the next separator only: an unquoted `#` or `?` belongs to it, as it may to a password.
_PARAMETER = re.compile(r"([?&;])([^=&;?]*)=([^&;]*)")


def is_secret_name(name: str) -> bool:
    """Return whether a value of this name counts as a secret."""
    return _SECRET_NAME.search(name) is not None


def redact_url(url: str) -> str:
    """Return the URL with `***` for its password and the secrets among its query parameters.

    Never raises. When uncertain it redacts: in a malformed URL everything up to the last `@` counts as user and
    password, and a user without a password, which may be a mistyped password, is redacted too.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    location, question_mark, query = rest.partition("?")
    if "@" in query:
        # Either the query has a secret or the password has a `?`: it is not known which part may be shown.
        return scheme + separator + REDACTED
    user_info, at, host = location.rpartition("@")
    if at:
        user, colon, _ = user_info.partition(":")
        is_plain = bool(colon) and not re.search(r"[/#\s]", user)
        location = f"{user if is_plain else ''}{':' if is_plain else ''}{REDACTED}@{host}"
    return scheme + separator + location + _PARAMETER.sub(_redact_parameter, question_mark + query)


def _redact_parameter(match: re.Match[str]) -> str:
    separator, name, value = match.groups()
    is_secret = bool(value) and is_secret_name(unquote(name))
    return f"{separator}{name}={REDACTED if is_secret else value}"


def redact_run_task_kwargs(value: Any) -> Any:
    """Return a copy without the values of environment variables, wherever in it an `environment` is."""
    if isinstance(value, Mapping):
        return {
            key: _redact_environment(item) if str(key).lower() == "environment" else redact_run_task_kwargs(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_run_task_kwargs(item) for item in value]
    return value


def _redact_environment(environment: Any) -> Any:
    if not isinstance(environment, list | tuple):
        return REDACTED
    return [
        {key: item if key == "name" else REDACTED for key, item in entry.items()}
        if isinstance(entry, Mapping)
        else REDACTED
        for entry in environment
    ]


def holds_secret(key: str, text: str) -> bool:
    """Return whether the text of one configuration value has something to hide."""
    return redact_config_value(key, text) != text


def redact_config_value(key: str, text: str) -> str:
    """Return the text of one configuration value for display, secrets redacted."""
    if key.endswith("_keys"):
        return REDACTED if text else ""
    if key == "run_task_kwargs":
        try:
            return json.dumps(redact_run_task_kwargs(json.loads(text))) if text else ""
        except (ValueError, RecursionError):
            return REDACTED  # text that is not JSON cannot be searched for secrets
    if key in _NAME_KEYS and "://" not in text:
        return text
    return redact_url(text)
