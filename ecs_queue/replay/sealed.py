"""Opens the encrypted payloads in a request's events, for a process that has the encryption keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ecs_queue.errors import UndecodableMessage
from ecs_queue.journal import JournalEvent
from ecs_queue.messages.envelope import decode_request
from ecs_queue.messages.keyring import Keyring
from ecs_queue.runtask.launch_spec import args_scope, decode_launch_spec


def open_sealed(events: Iterable[JournalEvent], keyring: Keyring) -> Iterator[JournalEvent]:
    """Yield the events of one request, in their order, with envelopes and launch specs decrypted.

    An event that has nothing encrypted, or nothing that a key of `keyring` opens, stays as it is. Signatures of the
    payloads are not verified: that of the event's batch counts.
    """
    keys, nonce = keyring.without_signatures(), ""
    for event in events:
        if event.name == "request.submitted":
            nonce = str(event.data.get("nonce"))
            keys = keys.for_namespace(str(event.data.get("namespace") or keyring.namespace))
        try:
            opened = _open_payload(event, keys, nonce)
        except UndecodableMessage:
            opened = {}
        yield msgspec.structs.replace(event, data={**event.data, **opened}) if opened else event


def is_sealed(event: JournalEvent) -> bool:
    """Return whether a payload of the event is encrypted."""
    return any(_is_sealed(event.data.get(member)) for member in ("envelope", "launch_spec"))


def _open_payload(event: JournalEvent, keys: Keyring, nonce: str) -> dict[str, Any]:
    envelope, spec, target = (event.data.get(member) for member in ("envelope", "launch_spec", "target"))
    if _is_sealed(envelope):
        return {"envelope": msgspec.to_builtins(decode_request(msgspec.json.encode(envelope), keys))}
    if _is_sealed(spec):
        frozen_target = json.dumps(target, sort_keys=True, separators=(",", ":"))  # as `Target.encode` writes it
        launch = event.data.get("launch")
        if not isinstance(launch, int):
            return {}
        scope = args_scope(event.id, nonce, launch, frozen_target)
        opened = decode_launch_spec(msgspec.json.encode(spec).decode(), keys, scope)
        return {"launch_spec": msgspec.to_builtins(opened)}
    return {}


def _is_sealed(payload: object) -> bool:
    return isinstance(payload, dict) and isinstance(payload.get("sealed"), str)
