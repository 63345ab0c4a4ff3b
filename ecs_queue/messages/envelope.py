"""The wire format: requests and results as self-contained, versioned messages, JSON only, signed and sealed with keys.

A message is the JSON of a `TaskRequest` or a `TaskResult`. Unknown fields are ignored, so that an older worker accepts
messages of a newer producer with the same version number; an unknown version number is refused.
`ecs_queue.messages.schema` generates the JSON schemas in docs/schema/, so that programs in any language can submit.

Times are seconds since the epoch (UTC) in requests, which machines write, and RFC 3339 in results, which people read.
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import InvalidRequest, UndecodableMessage, UnverifiedMessage
from ecs_queue.messages.fields import MAX_DEPTH, Command, is_deeper_than
from ecs_queue.messages.keyring import NO_KEYS, Keyring, Scope
from ecs_queue.messages.request import (
    MAX_BODY_BYTES,
    POLICY_VERSION,
    VERSION,
    VERSION_2_FIELDS,
    TaskRequest,
    find_problem,
)
from ecs_queue.messages.result import TaskResult
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.record import Record

T = TypeVar("T")


class _EnvelopeVersion(msgspec.Struct):
    v: int


class _PriorityOnly(msgspec.Struct):
    priority: int = 0


class _SealedFields(PayloadRepr, msgspec.Struct, frozen=True, omit_defaults=True):
    """The members that are encrypted if there is a key: they may hold passwords."""

    command: Command
    executor_config: dict[str, Any] | None = None


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(TaskRequest)
_result_decoder = msgspec.json.Decoder(TaskResult)
_version_decoder = msgspec.json.Decoder(_EnvelopeVersion)
_secrets_decoder = msgspec.json.Decoder(_SealedFields)
_REQUEST_SCOPE: Scope = ("request",)
_RESULT_SCOPE: Scope = ("result",)


def encode(message: TaskRequest | TaskResult, keyring: Keyring = NO_KEYS) -> bytes:
    """Return the message as JSON, sealed and signed if the keyring has keys.

    Raises:
        InvalidRequest: Sealing makes the request longer than any worker accepts.
    """
    if isinstance(message, TaskResult):
        return keyring.sign(_encoder.encode(message), _RESULT_SCOPE)
    text = keyring.sign(
        _encode_sealed(message, keyring) if keyring.has_encryption_keys else _encoder.encode(message), _REQUEST_SCOPE
    )
    if len(text) > MAX_BODY_BYTES:
        raise InvalidRequest(f"the request has {len(text)} bytes as sent, more than {MAX_BODY_BYTES} are not accepted")
    return text


def read_priority(body: bytes) -> int:
    """Return the priority in an unchecked request envelope; 0 if there is none that can be read."""
    try:
        return max(0, min(9, msgspec.json.decode(body, type=_PriorityOnly).priority))
    except (msgspec.DecodeError, ValueError, RecursionError):  # nested thousands deep
        return 0


def decode_request(body: bytes, keyring: Keyring = NO_KEYS) -> TaskRequest:
    """Return the request in `body`. Without signing keys in the keyring, a signature is ignored.

    Raises:
        UndecodableMessage: It is not a valid request; the message says why.
        UnverifiedMessage: The keyring has signing keys, and none of them signed it.
        SealedMessage: It is encrypted, and no key of the keyring opens it.
    """
    _check_size(body)
    keyring.verify(body, _REQUEST_SCOPE)
    request = _decode(body, partial(_decode_sealed, keyring) if b'"sealed"' in body else _request_decoder.decode)
    _check_request_version(request)
    if is_deeper_than(request.executor_config, MAX_DEPTH):
        raise UndecodableMessage(f"not a valid envelope: executor_config is nested more than {MAX_DEPTH} deep")
    return request


def decode_result(body: bytes, keyring: Keyring = NO_KEYS) -> TaskResult:
    """Return the result in `body`; raises UndecodableMessage and UnverifiedMessage as `decode_request` does."""
    _check_size(body)
    keyring.verify(body, _RESULT_SCOPE)
    result = _decode(body, _result_decoder.decode)
    _check_version(result.v)
    return result


def decode_record_request(record: Record, keyring: Keyring) -> TaskRequest:
    """Return the request that a record was made from; raises as `decode_request` does.

    With signing keys it is certainly this record's request: UnverifiedMessage if it was signed for another id, another
    submission, or another queue with that queue's roles.
    """
    request = decode_request(record.request, keyring)
    if keyring.has_signing_keys:
        signed = (request.id, compute_nonce(keyring.namespace, record.request), request.queue, request.relaunch)
        if signed != (record.id, record.nonce, record.queue, record.relaunch):
            raise UnverifiedMessage(
                "the record's request was made for another id, submission or queue; check who can write to the ledger"
            )
    return request


def compute_nonce(namespace: str, body: bytes) -> str:
    """Return eight characters that identify this submission among all others, even of the same id (docs/protocol.md).

    `body` is the request exactly as it was published; it contains the submission time.
    """
    digest = hashlib.sha256(namespace.encode() + b"\0" + body).digest()
    return b2a_base64(digest[:6], newline=False).translate(_URL_SAFE).decode()


def _encode_sealed(request: TaskRequest, keyring: Keyring) -> bytes:
    """The request with `sealed` in place of its secrets."""
    clear: dict[str, Any] = msgspec.to_builtins(request)
    secrets = _encoder.encode(_SealedFields(clear.pop("command"), clear.pop("executor_config", None)))
    return _encoder.encode({**clear, "sealed": keyring.seal(secrets, _sealed_scope(request))})


def _decode_sealed(keyring: Keyring, body: bytes) -> TaskRequest:
    members = msgspec.json.decode(body)
    if not isinstance(members, dict) or "sealed" not in members:
        return _request_decoder.decode(body)
    if members.keys() & {"command", "executor_config"}:
        raise UndecodableMessage("not a valid envelope: it has both `sealed` and the members that should be sealed")
    clear = msgspec.convert({**members, "command": ["sealed"]}, TaskRequest)
    _check_request_version(clear)
    token = msgspec.convert(members["sealed"], str)
    secrets = _secrets_decoder.decode(keyring.unseal(token, _sealed_scope(clear)))
    return msgspec.structs.replace(clear, command=secrets.command, executor_config=secrets.executor_config)


def _sealed_scope(request: TaskRequest) -> Scope:
    return ("request", request.id, request.queue)


def _check_size(body: bytes) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise UndecodableMessage(f"the message has {len(body)} bytes, more than {MAX_BODY_BYTES} are not accepted")


def _decode(body: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        _check_version(_read_version(body), POLICY_VERSION)  # another version may have another shape
        raise UndecodableMessage(f"not a valid envelope: {error_text(error)}") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError
        raise UndecodableMessage(f"not JSON: {error_text(error)}") from None


def _read_version(body: bytes) -> int:
    try:
        return _version_decoder.decode(body).v
    except (msgspec.DecodeError, ValueError, RecursionError):
        return VERSION


def _check_request_version(request: TaskRequest) -> None:
    _check_version(request.v, POLICY_VERSION)
    newer = [name for name in VERSION_2_FIELDS if getattr(request, name) is not None]
    if newer and request.v < POLICY_VERSION:
        raise UndecodableMessage(f"not a valid envelope: {newer[0]} needs the envelope version {POLICY_VERSION}")
    problem = find_problem(request)
    if problem:
        raise UndecodableMessage(f"not a valid envelope: {problem}")


def _check_version(version: int, newest: int = VERSION) -> None:
    if not VERSION <= version <= newest:
        known = VERSION if newest == VERSION else f"{VERSION} to {newest}"
        raise UndecodableMessage(f"envelope version {version} is unknown, this worker knows {known}")
