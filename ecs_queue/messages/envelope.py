"""The wire format: `TaskRequest` and `TaskResult`, self-contained, versioned, JSON only.

A message is the JSON of one of these structs. Unknown fields are ignored, so that an older worker accepts messages of
a newer producer with the same version number; an unknown version number is refused. `ecs_queue.messages.schema`
generates the JSON schemas in docs/schema/, so that programs in any language can submit.

Times are seconds since the epoch (UTC) in requests, which machines write, and RFC 3339 in results, which people read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from math import isnan
from typing import Annotated, Any, TypeGuard, TypeVar

import msgspec

from ecs_queue.durations import MAX_SECONDS
from ecs_queue.error_text import error_text
from ecs_queue.errors import InvalidRequest, UndecodableMessage, UnverifiedMessage
from ecs_queue.messages.fields import (
    MAX_DEPTH,
    Command,
    EpochSeconds,
    Labels,
    OriginId,
    OwnerName,
    PersonName,
    QueueName,
    Relaunch,
    RetryRules,
    Seconds,
    TaskId,
    Timestamp,
    Traceparent,
    format_validation_error,
    is_deeper_than,
)
from ecs_queue.messages.keyring import NO_KEYS, Keyring, Scope
from ecs_queue.messages.labels import check_labels
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.messages.retry_rules import parse_retry_rules
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

T = TypeVar("T")

#: The version of a result, and of a request without launch policies; that of a request with some. A worker that knows
#: only the first would launch such a request without them, so it must refuse it.
VERSION, POLICY_VERSION = 1, 2
#: The members of a request that replace a policy of its queue, and all that need the second version (docs/policies.md).
POLICY_FIELDS = ("start_timeout", "retry_rules")
VERSION_2_FIELDS = (*POLICY_FIELDS, "delay", "not_before", "labels")
#: The longest message body that is accepted, in bytes. RunTask accepts at most 8192 characters of overrides, so a
#: message near this size could never be launched.
MAX_BODY_BYTES = 128 * 1024

#: The times that a datetime can have. Seconds since the epoch.
_FIRST_SECOND = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST_SECOND = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()

_TOO_DEEP_MESSAGE = f"executor_config: nested more than {MAX_DEPTH} deep"


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="request"):
    """One container to run. `submitted_at`, `accept_until` and `expires_at` are times of the producer's clock.

    `expires_at` is when it must have started (`submitted_at` + the caller's `expires_in`). After `accept_until` no
    record is made from the message any more. `owner` names the results queue; empty: no client waits, and the result
    stays in the ledger for its retention time. `priority`: 0 to 9, the highest is served first. `origin`: the id of the
    request that this one repeats; empty: none. `traceparent`: the caller's trace (W3C), which the container continues;
    empty: none. It is no part of the digest: the same request of another trace is the same request. `start_timeout`
    and `retry_rules` (none of the queue's if empty): in place of its queue's (docs/policies.md).
    `not_before` is when it may be launched (`submitted_at` + the caller's `delay`, if that is set); `expires_in` counts
    from it. `labels`: what it is for; its queue may make tags of them. `submitted_by`: who made it, as the producer
    says; no part of the digest.
    """

    v: int
    id: TaskId
    command: Command
    submitted_at: EpochSeconds
    accept_until: EpochSeconds
    queue: QueueName = "default"
    executor_config: dict[str, Any] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    expires_in: Seconds | None = None
    expires_at: EpochSeconds | None = None
    time_limit: Seconds | None = None
    relaunch: Relaunch = "never_started"
    start_timeout: Seconds | None = None
    retry_rules: RetryRules | None = None
    delay: Seconds | None = None
    not_before: EpochSeconds | None = None
    labels: Labels | None = None
    submitted_by: PersonName = ""
    owner: OwnerName = ""
    origin: OriginId = ""
    traceparent: Traceparent = ""

    def __repr__(self) -> str:
        """Return a text without command and environment: they hold secrets."""
        return f"TaskRequest(id={self.id!r}, queue={self.queue!r})"

    def digest(self) -> str:
        """Return a hash of what the caller chose: equal for the same request, whenever and by whom it is submitted."""
        chosen = (
            self.id,
            self.command,
            self.queue,
            self.executor_config or {},
            self.priority,
            self.expires_in,
            self.time_limit,
            self.relaunch,
        )
        policies = self.given_policies()
        if self.delay is not None or self.not_before is not None:
            policies |= {"not_before": self.not_before} if self.delay is None else {"delay": self.delay}
        if self.labels is not None:
            policies["labels"] = self.labels
        return hashlib.sha256(_canonical.encode((*chosen, policies) if policies else chosen)).hexdigest()[:32]

    def given_policies(self) -> dict[str, Any]:
        """Return the launch policies that the request sets itself, by their names."""
        return {name: value for name in POLICY_FIELDS if (value := getattr(self, name)) is not None}


class TaskResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """How one request ended. Delivered at least once: deduplicate by (`id`, `nonce`).

    `attempts` counts the attempts that were made: 0 if nothing was launched. `exit_code` is the main container's.
    """

    v: int
    id: TaskId
    nonce: str
    state: str
    queue: str
    owner: str
    exit_code: int | None
    task_arn: str | None
    attempts: int
    reason: str
    stop_code: str | None
    queued_at: Timestamp | None
    launched_at: Timestamp | None
    started_at: Timestamp | None
    finished_at: Timestamp | None

    @property
    def succeeded(self) -> bool:
        """Return whether the container ran and ended with exit code 0."""
        return self.state == State.SUCCESS

    def to_result_line(self) -> dict[str, Any]:
        """Return the result line of the CLI: ready for JSON, with times as RFC 3339 strings."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return {name: built[name] for name in RESULT_LINE_FIELDS}


#: The members of a result line, in order.
RESULT_LINE_FIELDS = tuple(
    name for name in TaskResult.__struct_fields__ if name not in ("v", "nonce", "queue", "owner")
)


class _EnvelopeVersion(msgspec.Struct):
    v: int


class _PriorityOnly(msgspec.Struct):
    priority: int = 0


class _SealedFields(PayloadRepr, msgspec.Struct, frozen=True, omit_defaults=True):
    """The members that are encrypted if there is a key: they may hold passwords."""

    command: Command
    executor_config: dict[str, Any] | None = None


_canonical = msgspec.json.Encoder(order="deterministic")
_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(TaskRequest)
_result_decoder = msgspec.json.Decoder(TaskResult)
_version_decoder = msgspec.json.Decoder(_EnvelopeVersion)
_secrets_decoder = msgspec.json.Decoder(_SealedFields)
_REQUEST_SCOPE: Scope = ("request",)
_RESULT_SCOPE: Scope = ("result",)


def new_request(
    *,
    id: str,
    command: list[str],
    now: float,
    accept_seconds: float,
    expires_in: float | None = None,
    delay: float | None = None,
    not_before: float | None = None,
    **fields: Any,
) -> TaskRequest:
    """Return a valid request made at `now` (seconds since the epoch); InvalidRequest names the wrong field.

    Its queue has the canonical name, by which workers consume.
    """
    unknown = fields.keys() - set(TaskRequest.__struct_fields__)
    if unknown:
        raise InvalidRequest(f"{min(unknown)}: a request has no such field")
    if delay is not None and not_before is not None:
        raise InvalidRequest("delay, not_before: expected only one of them, found both; leave one out")
    if _is_number(delay):
        not_before = now + min(delay, MAX_SECONDS)
    start = not_before if _is_number(not_before) else now  # what is wrong is refused below, with the name of its field
    fields = {**fields, "labels": fields.get("labels") or None}
    has_policies = not_before is not None or any(fields.get(name) is not None for name in VERSION_2_FIELDS)
    members = {
        "v": POLICY_VERSION if has_policies else VERSION,
        "kind": "request",
        "id": id,
        "command": command,
        "submitted_at": now,
        "accept_until": now + accept_seconds,
        "expires_in": expires_in,
        "expires_at": start + min(expires_in, MAX_SECONDS) if _is_number(expires_in) else None,
        "delay": delay,
        "not_before": not_before,
        **fields,
    }
    try:
        request = msgspec.convert(members, TaskRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(format_validation_error(error_text(error), members)) from None
    except UnicodeEncodeError:  # a text with half of a surrogate pair
        raise InvalidRequest(
            "the request cannot be written as JSON: expected UTF-8 text, found other characters"
        ) from None
    _check_encodable(request)
    problem = _find_problem(request)
    if problem:
        raise InvalidRequest(problem)
    queue = canonical_queue_name(request.queue)
    return request if queue == request.queue else msgspec.structs.replace(request, queue=queue)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    return base64.urlsafe_b64encode(digest[:6]).decode()


def build_result(record: Record) -> TaskResult:
    """Return the result of a terminal record."""
    return TaskResult(
        v=VERSION,
        id=record.id,
        nonce=record.nonce,
        state=str(record.state.value),
        queue=record.queue,
        owner=record.owner,
        exit_code=record.exit_code,
        task_arn=record.arn or None,
        attempts=record.attempts,
        reason=record.reason,
        stop_code=record.stop_code or None,
        queued_at=to_datetime(record.created_at),
        launched_at=to_datetime(record.launched_at),
        started_at=to_datetime(record.started_at),
        finished_at=to_datetime(record.finished_at),
    )


def to_datetime(epoch_seconds: float | None) -> datetime | None:
    """Return epoch seconds as an aware UTC datetime, to the millisecond; None and 0 mean never.

    Never raises: a time beyond the years 1 and 9999, such as one in milliseconds, becomes the nearest one within them.
    """
    if not epoch_seconds or isnan(epoch_seconds):
        return None
    return datetime.fromtimestamp(round(min(max(epoch_seconds, _FIRST_SECOND), _LAST_SECOND), 3), UTC)


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


def _check_encodable(request: TaskRequest) -> None:
    """Raise InvalidRequest for values that JSON cannot represent, and for a request beyond the limits."""
    try:
        text = _canonical.encode(request)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if is_deeper_than(request.executor_config, MAX_DEPTH):
            raise InvalidRequest(_TOO_DEEP_MESSAGE) from None
        raise InvalidRequest(f"the request cannot be written as JSON: {error_text(error)}") from None
    brackets = text.count(b"{") + text.count(b"[")  # few brackets cannot be deep
    if brackets > MAX_DEPTH and is_deeper_than(request.executor_config, MAX_DEPTH):
        raise InvalidRequest(_TOO_DEEP_MESSAGE)
    if len(text) > MAX_BODY_BYTES:
        raise InvalidRequest(f"the request has {len(text)} bytes as JSON, more than {MAX_BODY_BYTES} are not accepted")


def _check_request_version(request: TaskRequest) -> None:
    _check_version(request.v, POLICY_VERSION)
    newer = [name for name in VERSION_2_FIELDS if getattr(request, name) is not None]
    if newer and request.v < POLICY_VERSION:
        raise UndecodableMessage(f"not a valid envelope: {newer[0]} needs the envelope version {POLICY_VERSION}")
    problem = _find_problem(request)
    if problem:
        raise UndecodableMessage(f"not a valid envelope: {problem}")


def _find_problem(request: TaskRequest) -> str:
    """Return what is wrong with members whose types are right, "" for nothing."""
    name = "retry_rules"
    try:
        parse_retry_rules(request.retry_rules or ())
        name = "labels"
        check_labels(request.labels or {})
    except ValueError as error:
        return f"{name}: {error_text(error)}"
    return ""


def _check_version(version: int, newest: int = VERSION) -> None:
    if not VERSION <= version <= newest:
        known = VERSION if newest == VERSION else f"{VERSION} to {newest}"
        raise UndecodableMessage(f"envelope version {version} is unknown, this worker knows {known}")
