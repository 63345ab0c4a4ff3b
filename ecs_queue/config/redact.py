"""What may be shown of a configuration: never a password, never a value of an environment variable."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

REDACTED = "***"

_SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|credential|signature|(^|[_-])auth|(^|[_-])key($|[_-]id$)|(api|access|private|account)_?key",
    re.IGNORECASE,
)
# A value ends at the next separator only: an unquoted `#` or `?` belongs to it, as it may to a password.
_PARAMETER = re.compile(r"([?&;])([^=&;?]*)=([^&;]*)")


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is taken for a secret."""
    return _SECRET_NAME.search(name) is not None


def redact_url(url: str) -> str:
    """The URL with its password, and the secrets among its query parameters, as `***`.

    Never raises, and hides rather too much than too little: in a malformed URL everything up to the last
    `@` is taken for the user and the password, and a user without a password may be a mistyped password and
    is hidden too.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    place, question_mark, query = rest.partition("?")
    if "@" in query:
        # Either the query has a secret or the password has a `?`: nobody can tell which part may be shown.
        return scheme + separator + REDACTED
    user_info, at, host = place.rpartition("@")
    if at:
        user, colon, _ = user_info.partition(":")
        is_plain = bool(colon) and not re.search(r"[/#\s]", user)
        place = f"{user if is_plain else ''}{':' if is_plain else ''}{REDACTED}@{host}"
    return scheme + separator + place + _PARAMETER.sub(_redact_parameter, question_mark + query)


def _redact_parameter(match: re.Match[str]) -> str:
    separator, name, value = match.groups()
    is_secret = bool(value) and is_secret_name(unquote(name))
    return f"{separator}{name}={REDACTED if is_secret else value}"


def redact_run_task_kwargs(value: Any) -> Any:
    """A copy without the values of environment variables, wherever in it an `environment` stands."""
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


def redact_config_value(key: str, text: str) -> str:
    """The text of one configuration value, fit to be shown in a message or a table."""
    if key.endswith("_keys"):
        return REDACTED if text else ""
    if key == "run_task_kwargs":
        try:
            return json.dumps(redact_run_task_kwargs(json.loads(text))) if text else ""
        except (ValueError, RecursionError):
            return REDACTED  # what is no JSON cannot be searched for secrets
    return redact_url(text)
