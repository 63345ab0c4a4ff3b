"""The labels of a request, and the names of who submitted and stopped it, and of its concurrency key.

AWS's rules of tags hold for every label.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html#tag-restrictions
MAX_LABELS, MAX_KEY_LENGTH, MAX_VALUE_LENGTH = 50, 128, 256
#: Of the name of who submitted or stopped a request, and of a concurrency key.
MAX_NAME_LENGTH = 128
NAME_RULE = f"{MAX_NAME_LENGTH} characters, none of them a control character, without spaces at the ends"
_PUNCTUATION = frozenset(" _.:/=+-@")
_RESERVED_PREFIX = "aws:"


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise ValueError, saying what was expected, for the first label that could not be a tag of AWS."""
    if len(labels) > MAX_LABELS:
        raise ValueError(f"expected at most {MAX_LABELS}, found {len(labels)}")
    for key, value in labels.items():
        if not 0 < len(key) <= MAX_KEY_LENGTH or not all(map(_is_allowed, key)) or key != key.strip():
            raise ValueError(f"expected keys of 1 to {MAX_KEY_LENGTH} of {_ALLOWED}, found {key!r:.80}")
        if key.lower().startswith(_RESERVED_PREFIX):
            raise ValueError(f"expected keys that do not begin with aws:, which AWS reserves, found {key!r:.80}")
        if len(value) > MAX_VALUE_LENGTH or not all(map(_is_allowed, value)) or value != value.strip():
            raise ValueError(
                f"{key}: expected a value of at most {MAX_VALUE_LENGTH} of {_ALLOWED}, found {value!r:.80}"
            )
        if value.lower().startswith(_RESERVED_PREFIX):
            raise ValueError(f"{key}: expected a value that does not begin with aws:, which AWS reserves")


_ALLOWED = "letters, digits, spaces inside and _ . : / = + - @"


def fit_label_value(value: str) -> str:
    """Return the value with each character that a tag may not have as `_`, and cut: for a name that others chose."""
    fitted = "".join(character if _is_allowed(character) else "_" for character in value)
    fitted = fitted[:MAX_VALUE_LENGTH].strip()
    return fitted.replace(":", "_", 1) if fitted.lower().startswith(_RESERVED_PREFIX) else fitted


def check_name(name: str) -> None:
    """Raise ValueError for what cannot name a person, a program or a key: too long, or with control characters."""
    if not 0 < len(name) <= MAX_NAME_LENGTH or name != name.strip() or any(map(is_control_character, name)):
        raise ValueError(f"expected 1 to {NAME_RULE}, found {name!r:.80}")


def is_control_character(character: str) -> bool:
    """Return whether it moves a cursor, hides or reorders what follows, or is half of a pair (categories C, Zl, Zp)."""
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def _is_allowed(character: str) -> bool:
    return character.isalnum() or character in _PUNCTUATION
