"""Names of queues in Amazon SQS, which has 80 characters of A-Z a-z 0-9 _ - for them.

NAMESPACE--requests--QUEUE    requests; workers consume them
NAMESPACE--dead--QUEUE        where a redrive policy of the former may move what is received too often
"""

from __future__ import annotations

import hashlib
import re

_MAX_LENGTH = 80
_SEPARATOR = "--"
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_HASH_LENGTH = 12


def request_queue_name(namespace: str, queue: str) -> str:
    """Return SQS's name of a request queue."""
    return _name(namespace, "requests", queue)


def dead_letter_queue_name(namespace: str, queue: str) -> str:
    """Return SQS's name of the queue in which it may leave dead letters of a request queue."""
    return _name(namespace, "dead", queue)


def _name(namespace: str, kind: str, queue: str) -> str:
    """Return a name that no other queue gets. A name that SQS refuses, or that is ambiguous, ends with a hash."""
    name = _SEPARATOR.join((namespace, kind, queue))
    if len(name) <= _MAX_LENGTH and all(map(_is_plain, (namespace, queue))):
        return name
    digest = hashlib.sha256(f"{namespace}/{kind}/{queue}".encode()).hexdigest()[:_HASH_LENGTH]
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", queue)
    head = f"{namespace}{_SEPARATOR}{kind}{_SEPARATOR}{readable}"[: _MAX_LENGTH - _HASH_LENGTH - len(_SEPARATOR)]
    return f"{head}{_SEPARATOR}{digest}"


def _is_plain(part: str) -> bool:
    return bool(_PLAIN.fullmatch(part)) and _SEPARATOR not in part and not part.startswith("-") and part[-1] != "-"
