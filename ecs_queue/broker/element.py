"""An element of a queue in Redis: a message in kombu's format. No function here decompresses a body.

kombu decompresses a body while it builds the message, before our code can check size and signature: a small element
could take any amount of memory. Therefore a compressed message is an undecodable element.
"""

from __future__ import annotations

import uuid
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from ecs_queue.error_text import error_text


class UndecodableElement(Exception):  # noqa: N818 - never leaves this package
    """An element is not a message. Its text says why, and quotes nothing of the element, which may hold secrets."""


class Element(NamedTuple):
    """What a consumer needs of a message."""

    body: bytes
    redelivered: bool


def find_size_problem(size: int, max_bytes: int) -> str:
    """Return why an element of `size` bytes is refused; "" when it is not."""
    if size <= max_bytes:
        return ""
    return f"it has {size} bytes, and more than {max_bytes} are not read (max_message_bytes); its first bytes are kept"


def find_header_problem(headers: Any) -> str:
    """Return why a message with these headers is refused; "" when it is not."""
    if not isinstance(headers, dict):
        return "its headers are not an object"
    if headers.get("compression"):
        return "it is compressed, and nothing is inflated: publish it without compression"
    return ""


def encode_elements(queue: str, priority: int, bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the elements of messages, each with its own delivery tag.

    Args:
        queue: The broker's name of the queue.
        priority: In the order of Redis: 0 is served first.
        bodies: The envelopes.
    """
    properties = {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": priority,
        "body_encoding": "base64",
    }
    common = {"content-encoding": "utf-8", "content-type": "application/json", "headers": {}}
    head = msgspec.json.encode({**common, "properties": properties}).removesuffix(b"}}")
    # One UUID for all: each is a call of the system, in which the thread gives up the GIL.
    tag_prefix = str(uuid.uuid4()).encode()
    for number, body in enumerate(bodies):
        encoded = b2a_base64(body, newline=False)
        yield b'%b,"delivery_tag":"%b.%d"},"body":"%b"}' % (head, tag_prefix, number, encoded)


def decode_element(raw: bytes) -> Element:
    """Return the body of an element.

    Raises:
        UndecodableElement: It is not a message in kombu's format, or it is compressed.
    """
    message = _decode_json(raw)
    properties = message.get("properties") if isinstance(message, dict) else None
    if not isinstance(properties, dict):
        raise _format_error("it has no properties")
    if not isinstance(properties.get("delivery_tag"), str):
        raise _format_error("it has no delivery_tag")
    headers = message.get("headers") or {}
    if problem := find_header_problem(headers):
        raise _format_error(problem)
    return Element(_decode_body(message.get("body"), properties.get("body_encoding")), bool(headers.get("redelivered")))


def find_problem(raw: bytes) -> str:
    """Return why an element cannot be used; "" when it can."""
    try:
        decode_element(raw)
    except UndecodableElement as error:
        return error_text(error)
    return ""


def mark_redelivered(raw: bytes, queue: str) -> tuple[bytes, int]:
    """Return a message as kombu returns it to `queue`, and its priority in the order of Redis (0 to 9).

    Args:
        raw: An element that `decode_element` accepts.
        queue: The broker's name of its queue.
    """
    message = _decode_json(raw)
    properties = message["properties"]
    message["headers"] = {**(message.get("headers") or {}), "redelivered": True}
    properties["delivery_info"] = {"exchange": "", "routing_key": queue, "redelivered": True}
    try:
        priority = max(0, min(int(properties.get("priority", 0)), 9))
    except (TypeError, ValueError):
        priority = 0
    return msgspec.json.encode(message), priority


def _decode_json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UndecodableElement(f"not JSON that can be read: {type(error).__name__}") from None


def _decode_body(body: Any, encoding: Any) -> bytes:
    if not isinstance(body, str):
        raise _format_error("its body is not a string")
    if encoding in (None, "", "utf-8"):
        return body.encode()
    if encoding != "base64":
        raise _format_error("its body_encoding is unknown")
    try:
        return a2b_base64(body)
    except ValueError:
        raise _format_error("its body is not base64") from None


def _format_error(problem: str) -> UndecodableElement:
    return UndecodableElement(f"not a message in kombu's format: {problem}")
