"""Elements of a list as other programs may push them."""

from __future__ import annotations

import base64
import json
from typing import Any


def make_element(**changes: Any) -> bytes:
    """Return a message in kombu's format with changed members; None removes a member."""
    properties = {
        "delivery_tag": "tag",
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "requests.q"},
        "priority": 0,
    }
    message = {"body": base64.b64encode(b"{}").decode(), "headers": {}, "properties": properties}
    for name, value in changes.items():
        (properties if name in properties else message)[name] = value
    return json.dumps(message).encode()


UNDECODABLE = {
    "not JSON": b"nope",
    "empty": b"",
    "invalid UTF-8": b"\xff\xfe{}",
    "deeply nested": b"[" * 100_000,
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "an empty object": b"{}",
    "a type that kombu does not know": b'{"__type__": "x", "__value__": 1}',
    "a type that kombu cannot read": b'{"__type__": "decimal", "__value__": "x"}',
    "no body": make_element(body=None),
    "a number as body": make_element(body=10**12),
    "a body that is no base64": make_element(body="e30"),
    "an unknown encoding of the body": make_element(body_encoding="rot13"),
    "a body with half a character": make_element(body="\ud800", body_encoding="utf-8"),
    "no delivery tag": make_element(delivery_tag=None),
    "a list as delivery tag": make_element(delivery_tag=[1]),
    "headers that are no object": make_element(headers=[1]),
    "properties that are no object": make_element(properties=[1]),
}
