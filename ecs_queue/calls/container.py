"""The container's side of a call: reads it, runs the function, and writes what it returned or raised."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ecs_queue.calls.payload import (
    Call,
    CallOptions,
    Reply,
    decode_arguments,
    encode_error,
    encode_value,
    load_pickled_call,
    open_call,
    seal,
    text_of,
)
from ecs_queue.calls.store import CallStore, RedisCallStore, S3CallStore
from ecs_queue.error_text import error_text
from ecs_queue.errors import ConfigError, EcsQueueError, UnverifiedMessage, UsageError
from ecs_queue.runs.runner_key import RunnerKeys
from ecs_queue.runs.runner_options import CALL_KEY_VARIABLE, CALL_URL_VARIABLE, CALL_VARIABLE

#: The function raised; the call could not be made.
EXIT_RAISED, EXIT_UNUSABLE = 1, 2
#: How long a value is kept for a caller that does not fetch it. Seconds.
_KEEP_SECONDS = 86400.0


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run the call that the environment names, and return the exit status of the container."""
    try:
        options = read_options(environ)
        keys = RunnerKeys([key for key in environ.get(CALL_KEY_VARIABLE, "").split(",") if key.strip()])
        store = _open_store(options, environ)
        for name in (CALL_KEY_VARIABLE, CALL_URL_VARIABLE):  # the function's own child processes do not need them
            os.environ.pop(name, None)
        return run_call(options, store, keys)
    except EcsQueueError as error:
        print(f"ecs-queue: {error}", file=sys.stderr)
        return EXIT_UNUSABLE


def read_options(environ: Mapping[str, str]) -> CallOptions:
    """Return the options that the caller set; ConfigError when there are none that can be read."""
    try:
        return msgspec.json.decode(environ[CALL_VARIABLE], type=CallOptions)
    except KeyError:
        raise ConfigError(f"{CALL_VARIABLE} is not set: EcsExecutor starts this program (docs/functions.md)") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{CALL_VARIABLE}: {error_text(error)}: update ecs-queue in the image") from None


def run_call(options: CallOptions, store: CallStore, keys: RunnerKeys) -> int:
    """Run one call and store its reply. May run twice, when the request is launched again.

    Raises:
        UnverifiedMessage, UndecodableMessage: The call is not what a caller with the queue's key wrote.
        LedgerUnavailable, MissingRight: The payload cannot be read or written.
    """
    if options.serializer == "cloudpickle" and keys.is_empty:
        raise UnverifiedMessage(f"nothing is unpickled without a key: set {CALL_KEY_VARIABLE} (docs/functions.md)")
    payload = store.get(options.id, "in", options.max_bytes)
    if payload is None:
        raise UsageError(f"there is no call {options.id}: it was fetched already, or kept for too short a time")
    call, is_encrypted = open_call(payload, options, keys)
    reply = _run(call, options)
    answer = seal(reply, options, "out", keys, encrypts=is_encrypted)
    if len(answer) > options.max_bytes:
        reply = _too_large(len(answer), options.max_bytes)
        answer = seal(reply, options, "out", keys, encrypts=is_encrypted)
    store.put(options.id, "out", answer, _KEEP_SECONDS)
    return EXIT_RAISED if reply.raised else 0


def _run(call: Call, options: CallOptions) -> Reply:
    try:
        if options.serializer == "cloudpickle":
            function, args, kwargs = load_pickled_call(call)
        else:
            function = _import_function(call)
            args, kwargs = decode_arguments(call, function)
        return Reply(encode_value(function(*args, **kwargs), options.serializer))
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - the caller gets it, a CancelledError too
        traceback.print_exc()
        return _describe_raised(error, options)


def _import_function(call: Call) -> Callable[..., Any]:
    try:
        function = getattr(importlib.import_module(call.module), call.name, None)
    except ModuleNotFoundError as error:
        if error.name and f"{call.module}.".startswith(f"{error.name}."):
            error.add_note(
                f"The container cannot import {call.module}: put it into its image. On a local ECS give EcsExecutor "
                "environment={'PYTHONPATH': os.path.abspath('.')}, the directory of the module."
            )
        raise
    if not callable(function):
        raise UsageError(f"{call.module} has no function {call.name} in this image: build it from the caller's version")
    found: Callable[..., Any] = function
    return found


def _describe_raised(error: BaseException, options: CallOptions) -> Reply:
    kind = type(error)
    try:
        value = encode_error(error, options.serializer)
    except Exception:  # noqa: BLE001 - an exception may hold anything; its text says what is known
        value = b""
    trace = traceback.format_exc().encode("utf-8", "backslashreplace").decode()
    return Reply(value, f"{kind.__module__}.{kind.__qualname__}", text_of(error), trace)


def _too_large(length: int, max_bytes: int) -> Reply:
    text = (
        f"what the function returned or raised has {length} bytes, more than max_bytes ({max_bytes}): return a "
        "reference, such as in S3"
    )
    return Reply(raised="ecs_queue.errors.UsageError", text=text, value=msgspec.json.encode([text]))


def _open_store(options: CallOptions, environ: Mapping[str, str]) -> CallStore:
    if options.s3:
        return S3CallStore(options.s3)
    url = environ.get(CALL_URL_VARIABLE, "")
    if not url:
        raise ConfigError(f"{CALL_URL_VARIABLE} is not set: make it a secret of the container (docs/functions.md)")
    return RedisCallStore(url, options.namespace, CALL_URL_VARIABLE)
