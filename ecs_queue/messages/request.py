"""`TaskRequest`: one container to run, as a message has it, and how a producer makes a valid one."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, TypeGuard

import msgspec

from ecs_queue.durations import MAX_SECONDS
from ecs_queue.error_text import error_text
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.fields import (
    MAX_DEPTH,
    Command,
    ConcurrencyKey,
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
    Traceparent,
    format_validation_error,
    is_deeper_than,
)
from ecs_queue.messages.labels import check_labels, check_name
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.messages.retry_rules import parse_retry_rules

#: The version of a result, and of a request without launch policies; that of a request with some. A worker that knows
#: only the first would launch such a request without them, so it must refuse it.
VERSION, POLICY_VERSION = 1, 2
#: The members of a request that replace a policy of its queue, and all that need the second version (docs/policies.md).
POLICY_FIELDS = ("start_timeout", "retry_rules")
VERSION_2_FIELDS = (*POLICY_FIELDS, "delay", "not_before", "labels", "concurrency_key")
#: The longest message body that is accepted, in bytes. RunTask accepts at most 8192 characters of overrides, so a
#: message near this size could never be launched.
MAX_BODY_BYTES = 128 * 1024

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
    from it. `concurrency_key`: at most `max_per_key` requests of its queue with this key are in flight at a time.
    `labels`: what it is for; its queue may make tags of them. `submitted_by`: who made it, as the producer
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
    concurrency_key: ConcurrencyKey | None = None
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
        if self.concurrency_key is not None:
            policies["concurrency_key"] = self.concurrency_key
        return hashlib.sha256(_canonical.encode((*chosen, policies) if policies else chosen)).hexdigest()[:32]

    def given_policies(self) -> dict[str, Any]:
        """Return the launch policies that the request sets itself, by their names."""
        if self.start_timeout is None and self.retry_rules is None:  # most requests
            return {}
        return {name: value for name in POLICY_FIELDS if (value := getattr(self, name)) is not None}


_REQUEST_FIELDS = frozenset(TaskRequest.__struct_fields__)
_canonical = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(TaskRequest)


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
    if not _REQUEST_FIELDS.issuperset(fields):
        raise InvalidRequest(f"{min(fields.keys() - _REQUEST_FIELDS)}: a request has no such field")
    if delay is not None and not_before is not None:
        raise InvalidRequest("delay, not_before: expected only one of them, found both; leave one out")
    if _is_number(delay):
        not_before = now + min(delay, MAX_SECONDS)
    # A time that is over means now. What is wrong is refused below, with the name of its field.
    start = max(now, not_before) if _is_number(not_before) else now
    fields["labels"] = fields.get("labels") or None
    given = [name for name in VERSION_2_FIELDS if fields.get(name) is not None]
    has_policies = not_before is not None or bool(given)
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
    as_sent = _read_back(request)
    problem = find_problem(request) or find_problem(as_sent)
    if problem:
        raise InvalidRequest(problem)
    # The executor_config stays as it was given: what is wrong with it is said in the words of its types.
    as_sent = msgspec.structs.replace(as_sent, executor_config=request.executor_config)
    queue = canonical_queue_name(as_sent.queue)
    return as_sent if queue == as_sent.queue else msgspec.structs.replace(as_sent, queue=queue)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_back(request: TaskRequest) -> TaskRequest:
    """Return the request as a worker reads it.

    Texts are plain ones, then: a member of `class Queues(str, Enum)` is a text whose f-string is `Queues.ETL`, which
    would be another name in the keys of the ledger.

    Raises:
        InvalidRequest: It has values that JSON cannot represent, or is beyond the limits.
    """
    try:
        text = _canonical.encode(request)
        config = _canonical.encode(request.executor_config)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if is_deeper_than(request.executor_config, MAX_DEPTH):
            raise InvalidRequest(_TOO_DEEP_MESSAGE) from None
        raise InvalidRequest(f"the request cannot be written as JSON: {error_text(error)}") from None
    brackets = config.count(b"{") + config.count(b"[")  # few brackets cannot be deep
    if brackets > MAX_DEPTH and is_deeper_than(request.executor_config, MAX_DEPTH):
        raise InvalidRequest(_TOO_DEEP_MESSAGE)
    if len(text) > MAX_BODY_BYTES:
        raise InvalidRequest(f"the request has {len(text)} bytes as JSON, more than {MAX_BODY_BYTES} are not accepted")
    return _decoder.decode(text)


def find_problem(request: TaskRequest) -> str:
    """Return what is wrong with members whose types are right, "" for nothing."""
    if not (request.retry_rules or request.labels or request.concurrency_key):  # most requests
        return ""
    name = "retry_rules"
    try:
        parse_retry_rules(request.retry_rules or ())
        name = "labels"
        check_labels(request.labels or {})
        name = "concurrency_key"
        check_name(request.concurrency_key or "none")
    except ValueError as error:
        return f"{name}: {error_text(error)}"
    return ""
