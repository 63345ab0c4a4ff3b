"""Hides payloads before they are journalled: the values of environment variables, and everything that looks secret.

What looks secret is a guess by names and forms; environment values (and on demand commands) are hidden whatever they
look like. The functions take JSON of any shape: an envelope, run_task arguments, a task, an error text of ECS. JSON
within a string (an Airflow workload in a command) is searched for secrets, too. Encrypted payloads are left as they
are, and so are names such as the task definition `auth-job:12`. Another uncertain value is redacted; `redacted_paths`
lists for a replay which values are missing.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import msgspec

from ecs_queue.config.redact import is_secret_name

#: Replaces a secret, alone or within a longer text.
REDACTED = "[redacted]"

#: What is hidden: what looks secret; besides, the values of environment variables; besides, commands.
Redaction = Literal["secrets", "environment", "arguments"]
REDACTIONS: tuple[Redaction, ...] = ("secrets", "environment", "arguments")
#: The members whose values are hidden, by the letters of their names: ECS's arguments are accepted in any casing.
_HIDDEN_MEMBERS: dict[Redaction, frozenset[str]] = {
    "secrets": frozenset(),
    "environment": frozenset({"environment"}),
    "arguments": frozenset({"environment", "command"}),
}

#: No expression below matches in a text without any of these (in lower case).
_TEXT_MARKERS = (
    *("pass", "pwd", "secret", "token", "credential", "signature", "auth", "key", "@", "eyj", "bearer", "basic"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "aiza", "sk-", "cookie", "jwt"),
    *("akia", "asia", "npm_", "pypi-", "hf_", "ya29.", "sg.", "_live_", "_test_", "dop_v1_", "dckr_pat_"),
    *("airflow_conn_", "-u", "webhook"),
)
#: What several markers have in common and texts without secrets rarely have: one search in place of several.
_SHARED_PARTS = ("cre", "gh", "ia", "j", "ok", "z", "_pat_")
_MARKERS_BY_PART = {
    part: tuple(marker for marker in _TEXT_MARKERS if part in marker)
    for part in dict.fromkeys(
        next((part for part in _SHARED_PARTS if part in marker), marker) for marker in _TEXT_MARKERS
    )
}
#: The same names come again and again; longer ones are not chosen by people, and are not cached.
_MAX_CACHED_NAME_LENGTH = 64
_is_secret_name_cached = lru_cache(4096)(is_secret_name)
_USER_INFO = re.compile(r"(://)([^\s/:@\"']*)(:?)([^\s/\"']*)@")
#: A user without a password and of this length is a token (https://TOKEN@host).
_MAX_USER_NAME_LENGTH = 20
#: A name and what stands between it and its value: `NAME=`, `name: `, `--name `. Possessive, so that it stays linear.
_NAME_AND_SEPARATOR = re.compile(r"(?<![\w.-])(-{0,2}[A-Za-z_][\w.-]*+)(\s*+=\s*+|\s*+:\s*+|\s++)")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s&;,\"'}\])]++")
_SIGNATURE = re.compile(r"[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}")
#: Fernet's format: a version byte, the time, the text and its MAC in URL-safe base64.
_SEALED = re.compile(r"gAAAA[\w-]{90,}={0,2}", re.ASCII)
#: Members with the name of a thing, as `_letters` spells them. `token-job:12` in them is a name and a revision or tag.
_NAMING_MEMBERS = frozenset(
    {"id", "originid", "queue", "owner", "worker", "concurrencykey", "submittedby", "namespace", "runner", "runnerid"}
    | {"taskdefinition", "taskdefinitionarn", "family", "image", "group", "cluster", "clusterarn", "taskarn", "arn"}
    | {"containerarn", "containerinstancearn", "startedby", "capacityprovider", "capacityprovidername"}
    | {"dagid", "taskid", "runid", "logpath", "externalexecutorid"}
)
#: Members of an event whose member `labels` has the labels of a request.
_LABELLED_MEMBERS = frozenset({"data", "envelope", "record"})
_FLAG = re.compile(r"--?([A-Za-z][\w.-]*)")
_TOKENS = re.compile(
    r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"  # a JSON web token
    r"|\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,})"
    r"|\b(?:sk-[\w-]{20,}|AIza[\w-]{30,}|(?:AKIA|ASIA)[A-Z0-9]{16}|npm_\w{30,}|pypi-[\w-]{16,}|hf_\w{20,})"
    r"|\b(?:ya29\.[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}|[srp]k_(?:live|test)_\w{10,}|dop_v1_\w{20,})"
    r"|\bdckr_pat_[\w-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
#: A name such as `pypi-mirror-sync-20250131` begins like a token. The random part of a token is never made of words.
_WORDS = re.compile(r"(?:[A-Z]?[a-z]{1,15}|[0-9]{1,8})(?:[_-]+(?:[A-Z]?[a-z]{1,15}|[0-9]{1,8}))*+[_-]*")
#: Within an ARN a colon stands between the parts of a name: `...:task-definition/auth-job:7`.
_ARN = re.compile(r"\barn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]*:[^\s\"'<>,;]*+")
#: The options of curl, wget and others whose value is `user:password`.
_USER_OPTIONS = frozenset({"-u", "-U", "--user", "--proxy-user"})
_USER_OPTION = re.compile(r"((?<![\w-])(?:-u|-U|--user|--proxy-user)(?:\s++|=)?[\"']?[^\s:\"']{1,128}+:)[^\s\"']++")
_BEARER = re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{8,}", re.IGNORECASE)


def redact_json(data: bytes, redaction: Redaction = "environment") -> bytes:
    """Return the JSON without what is hidden; the same bytes when there is nothing."""
    # Latin-1 decodes any bytes; the markers are ASCII. Searching a text is faster than searching bytes.
    lowered, hidden = data.lower().decode("latin-1"), _HIDDEN_MEMBERS[redaction]
    may_hide = bool(hidden) and _has_hidden_member(lowered, hidden)
    may_have_secrets = _has_marker(lowered)
    if not (may_hide or may_have_secrets):
        return data
    value = msgspec.json.decode(data)
    redacted = _hide_members(value, hidden) if may_hide else value
    if may_have_secrets:
        redacted = _redact(redacted, is_secret=False)
    return data if redacted == value else msgspec.json.encode(redacted)


def redact(value: Any, redaction: Redaction = "environment") -> Any:
    """Return a copy of a JSON value without what is hidden."""
    return _redact(_hide_members(value, _HIDDEN_MEMBERS[redaction]), is_secret=False)


def redacted_paths(value: Any) -> list[str]:
    """Return the paths of redacted values: `command[2]`, `executor_config.environment.DB_PASSWORD`."""
    return list(_redacted_paths(value, ""))


def is_redacted(value: object) -> bool:
    """Return whether the value is a text with a redacted part."""
    return isinstance(value, str) and REDACTED in value


def _has_hidden_member(lowered: str, hidden: frozenset[str]) -> bool:
    letters = lowered.replace("_", "")
    return any(name in letters for name in hidden)


def _has_marker(lowered: str) -> bool:
    """Whether a text, in lower case, may hold a secret. Most do not."""
    for part, markers in _MARKERS_BY_PART.items():  # not any(): every launch takes it
        if part in lowered and any(marker in lowered for marker in markers):
            return True
    return False


def _hide_members(value: Any, hidden: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _hide(item) if _letters(key) in hidden else _hide_members(item, hidden) for key, item in value.items()
        }
    return [_hide_members(item, hidden) for item in value] if isinstance(value, list) else value


def _redact(value: Any, is_secret: bool) -> Any:
    if isinstance(value, str):  # most values
        return (REDACTED if value else value) if is_secret else _redact_text(value)
    if isinstance(value, dict):
        entry_name = _entry_name(value)
        return {
            key: _redact_member(key, item, is_secret or _is_secret_member(key, entry_name))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _redact(item, is_secret or _is_option_value(previous, item))
            for previous, item in zip([None, *value], value, strict=False)
        ]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return REDACTED if is_secret and is_number else value


def _redact_member(key: str, item: Any, is_secret: bool) -> Any:
    if not isinstance(item, str):
        redacted = _redact(item, is_secret)
        labels = item.get("labels") if key in _LABELLED_MEMBERS and isinstance(item, dict) else None
        if isinstance(labels, dict) and not is_secret:
            redacted["labels"] = _redact_labels(labels)
        return redacted
    if _is_our_signature(key, item) or (key == "sealed" and _SEALED.fullmatch(item)):
        return item
    if not is_secret and _letters(key) in _NAMING_MEMBERS:
        return _redact_tokens(item)
    return _redact(item, is_secret)


def _redact_labels(labels: dict[str, Any]) -> dict[str, Any]:
    """Labels are for everyone to see, whatever their names are."""
    return {
        name: _redact_tokens(text) if isinstance(text, str) else _redact(text, is_secret=False)
        for name, text in labels.items()
    }


def _hide(value: Any) -> Any:
    """Hide a list of variables or of arguments: its length and the variables' names stay."""
    if isinstance(value, list):
        return [_hide_entry(item) if isinstance(item, dict) else REDACTED for item in value]
    return value if value is None else REDACTED


def _hide_entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: item if _letters(key) == "name" and isinstance(item, str) else REDACTED for key, item in entry.items()}


def _letters(name: str) -> str:
    """How ECS's arguments are compared: `containerOverrides` and `container_overrides` are one."""
    return name.replace("_", "").lower()


def _is_our_signature(key: str, item: object) -> bool:
    """Whether it is an envelope's signature, which is no secret."""
    return key == "signature" and isinstance(item, str) and _SIGNATURE.fullmatch(item) is not None


def _is_secret_member(key: str, entry_name: str) -> bool:
    if key == "concurrency_key":  # of a request, whose key of `max_per_key` is no secret: a retry needs it
        return False
    if entry_name:
        return key not in ("name", "key") and _is_secret_name(entry_name if key == "value" else key)
    return _is_secret_name(key)


def _is_secret_name(name: str) -> bool:
    return _is_secret_name_cached(name) if len(name) <= _MAX_CACHED_NAME_LENGTH else is_secret_name(name)


def _entry_name(entry: dict[str, Any]) -> str:
    """The name of an environment variable {"name", "value"} or a tag {"key", "value"}; "" for any other object."""
    name = entry.get("name", entry.get("key", "")) if "value" in entry else ""
    return name if isinstance(name, str) else ""


def _is_option_value(previous: object, item: object) -> bool:
    """Whether an argument of a command is the value of the option before it: `--password`, `hunter2`."""
    if not isinstance(previous, str) or not isinstance(item, str) or item.startswith("-"):
        return False
    if previous in _USER_OPTIONS:
        return ":" in item
    flag = _FLAG.fullmatch(previous)
    return flag is not None and _is_secret_name(flag[1])


def _redact_text(text: str) -> str:
    if text[:1] in "{[":
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            pass  # not JSON: an ordinary text
        else:
            try:
                redacted = _redact(value, is_secret=False)
            except RecursionError:  # nested too deep to be searched
                return REDACTED
            return text if redacted == value else msgspec.json.encode(redacted).decode()
    # In other texts the case-insensitive expressions may match letters that `lower` does not change.
    if text.isascii() and not _has_marker(text.lower()):
        return text
    text = _redact_tokens(text)
    text = _BEARER.sub(rf"\1\2{REDACTED}", text)
    text = _USER_OPTION.sub(rf"\1{REDACTED}", text)
    return _redact_named_values(text)


def _redact_tokens(text: str) -> str:
    """Redact what is a secret wherever it stands: the password of a URL, the token of a known service."""
    return _TOKENS.sub(_redact_token, _USER_INFO.sub(_redact_user_info, text))


def _redact_token(match: re.Match[str]) -> str:
    return match[0] if _WORDS.fullmatch(match[0]) else REDACTED


def _redact_user_info(match: re.Match[str]) -> str:
    start, user, colon, password = match.groups()
    if colon:
        return f"{start}{user}:{REDACTED}@"
    return f"{start}{REDACTED}@" if len(user + password) > _MAX_USER_NAME_LENGTH else match[0]


def _redact_named_values(text: str) -> str:
    """Redact `PASSWORD=x`, `--password x`, `password: x1` within a text."""
    parts: list[str] = []
    done = 0
    arns = [found.span() for found in _ARN.finditer(text)]
    for match in _NAME_AND_SEPARATOR.finditer(text):
        name, separator = match.groups()
        if match.start() < done or not _is_secret_name(name.lstrip("-")) or text.startswith(REDACTED, match.end()):
            continue
        if "=" not in separator and _is_within(match.start(), arns):
            continue
        value = _VALUE.match(text, match.end())
        if value is None or not _is_named_value(name, separator, value[0]):
            continue
        parts += text[done : value.start()], REDACTED
        done = value.end()
    return "".join((*parts, text[done:])) if parts else text


def _is_within(position: int, spans: list[tuple[int, int]]) -> bool:
    """Whether the position is in one of the spans, which stand in their order."""
    following = bisect(spans, position, key=lambda span: span[0])
    return following > 0 and position < spans[following - 1][1]


def _is_named_value(name: str, separator: str, value: str) -> bool:
    """Whether it is a value, and not the next word of a sentence about secrets or the padding of base64."""
    if "=" in separator:
        return value.strip("=") != ""
    if ":" in separator:
        return value[0] in "\"'" or re.search(r"\W|\d|_", value) is not None
    return name.startswith("-") and not value.startswith("-")


def _redacted_paths(value: Any, path: str) -> Iterator[str]:
    def join(name: object) -> str:
        return f"{path}.{name}" if path else str(name)

    if isinstance(value, dict):
        for key, item in value.items():
            yield from _redacted_paths(item, join(key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            name = _entry_name(item) if isinstance(item, dict) else ""
            if name and is_redacted(item.get("value")):
                yield join(name)
            else:
                yield from _redacted_paths(item, f"{path}[{position}]")
    elif is_redacted(value):
        yield path
