"""The text of an error, without any value of a payload: what goes to records, logs, results, journal and command line.

A library's error may quote what it was given: a variable of an environment, a word of a command. What a library marks
as sensitive differs between its versions, so the rules are our own. Every text of an error that is not of this package
comes from `error_text`, or from `hide_values` if it is a text of AWS or of the server; tests/security checks that.
This package's own errors are written without such values: checks ask `is_payload_member`.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from ecs_queue.errors import EcsQueueError

HIDDEN = "***"
#: Members of run_task's arguments and of a task definition, in lower case: no text shows a value of or below them.
_PAYLOAD_MEMBERS = frozenset({"command", "entrypoint", "environment", "environmentfiles", "secrets", "secretoptions"})
#: Shorter values are no secrets, and hiding them would make a text unreadable.
_MIN_HIDDEN_LENGTH = 4

_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")

#: What redis-py leaves out of the answers of a cluster: their texts are only the slot and an address.
_REDIRECTIONS = {"MovedError": "MOVED to another node: slot ", "AskError": "ASK, the slot is moving: slot "}
#: How other programs quote a value, and what takes its place. Each is greedy: a value may contain the words behind it.
_VALUE_FORMS = (
    # botocore: "Invalid type for parameter environment[0], value: DB_PASSWORD=x, type: <class 'str'>, valid types: ..."
    (re.compile(r", value: .*(?=, (?:type|valid [\w ]+): )", re.DOTALL), f", value: {HIDDEN}"),
    # botocore: 'Unknown parameter in environment[0]: "DB_PASSWORD=x", must be one of: name, value'
    (re.compile(r'(Unknown parameter in [^"\n]*: )".*"(?=, must be one of: )', re.DOTALL), rf"\1{HIDDEN}"),
    # AWS: "Value 'x' at 'overrides.containerOverrides.1.member.environment' failed to satisfy constraint: ..."
    (re.compile(r"\b(Values? )(['\"\[]).*(?= at ['\"]\S+['\"] failed to satisfy)", re.DOTALL), rf"\1{HIDDEN}"),
    # msgspec: "Invalid enum value 'x'", "Invalid value 'x'"
    (re.compile(r"(Invalid (?:enum )?value )'.*'", re.DOTALL), rf"\1{HIDDEN}"),
    # Redis: "unknown command 'X', with args beginning with: 'x' 'y'"
    (re.compile(r"(with args beginning with: ).*", re.DOTALL), rf"\1{HIDDEN}"),
    # redis-py: "Command # 1 (SET key x) of pipeline caused error: ..."
    (re.compile(r"(Command # \d+ \([A-Za-z]+ ).*(?=\) of pipeline caused error)", re.DOTALL), rf"\1{HIDDEN}"),
    # The password of a URL, which may have an unquoted "@"
    (re.compile(r"//[^/\s]+@"), f"//{HIDDEN}@"),
)
#: Python's own errors of a wrong value: "invalid literal for int() with base 10: 'x'".
_QUOTED = re.compile(r"""(['"]).*['"]""", re.DOTALL)


def is_payload_member(name: object) -> bool:
    """Return whether an argument of this name, in any spelling, is part of a payload, with everything below it."""
    return str(name).replace("_", "").lower() in _PAYLOAD_MEMBERS


def key_text(key: object) -> str:
    """Return a key of an object for an error; a text only if it is a plain name, as `DB_PASSWORD=x` is a value."""
    return f"{key!r:.64}" if not isinstance(key, str) or _PLAIN_NAME.fullmatch(key) else "(not a plain name)"


def error_text(error: BaseException) -> str:
    """Return what an error says, without values of a payload; an error of this package has none."""
    if isinstance(error, EcsQueueError):
        return str(error)
    text = _REDIRECTIONS.get(type(error).__name__, "") + hide_values(str(error))
    quotes_values = isinstance(error, ValueError) and not isinstance(error, UnicodeError)
    return (_QUOTED.sub(HIDDEN, text) if quotes_values else text) or type(error).__name__


def typed_error_text(error: BaseException) -> str:
    """Return `KeyError: 'taskArn'`: for unexpected errors."""
    name = type(error).__name__
    text = error_text(error)
    return name if text == name else f"{name}: {text}"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error and of its causes, the oldest first, each with `typed_error_text`."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{typed_error_text(current)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\nwhich led to\n\n".join(reversed(parts))


def hide_values(text: str, payload: Mapping[str, Any] | None = None) -> str:
    """Return a text of another program without the values that it quotes.

    Args:
        text: The text.
        payload: Arguments of run_task. What stands in them only below their payload members is hidden wherever it
            stands in the text as a whole word.
    """
    for form, replacement in _VALUE_FORMS:
        text = form.sub(replacement, text)
    if payload is None:
        return text
    hidden: set[str] = set()
    shown: set[str] = set()
    _collect_texts(payload, hidden, shown, is_payload=False)
    values = sorted((value for value in hidden - shown if len(value) >= _MIN_HIDDEN_LENGTH), key=len, reverse=True)
    if not values:
        return text
    words = "|".join(re.escape(value) for value in values)
    return re.sub(rf"(?<!\w)(?:{words})(?!\w)", HIDDEN, text)


def _collect_texts(value: Any, hidden: set[str], shown: set[str], is_payload: bool) -> None:
    """Add the texts in `value`, each also as one line; the names of variables count as shown."""
    if isinstance(value, str):
        (hidden if is_payload else shown).update((value, " ".join(value.split())))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect_texts(item, hidden, shown, is_payload=(is_payload and key != "name") or is_payload_member(key))
    elif isinstance(value, Iterable):
        for item in value:
            _collect_texts(item, hidden, shown, is_payload)
