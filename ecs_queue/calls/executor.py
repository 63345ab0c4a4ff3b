"""`EcsExecutor`: a `concurrent.futures.Executor` whose functions run in containers."""

from __future__ import annotations

import builtins
import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, ParamSpec, Self, TypeVar, Unpack

import msgspec

from ecs_queue.calls.payload import (
    CallOptions,
    Reply,
    Serializer,
    decode_error,
    decode_value,
    encode_call,
    open_reply,
    seal,
)
from ecs_queue.calls.store import CallStore, RedisCallStore, S3CallStore
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.client.request import Request, RequestOptions
from ecs_queue.config.keyring import runner_keys
from ecs_queue.errors import LedgerUnavailable, MissingRight, PermanentError, UsageError
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.states import State
from ecs_queue.runs.runner_key import RunnerKeys
from ecs_queue.runs.runner_options import CALL_VARIABLE

T = TypeVar("T")
P = ParamSpec("P")

logger = logging.getLogger("ecs_queue")

#: The largest call and value, in bytes: on the ledger's server, and in S3.
MAX_BYTES, MAX_S3_BYTES = 1024 * 1024, 256 * 1024 * 1024
#: What runs in the container.
COMMAND = ("python", "-m", "ecs_queue.call")
#: Replies that are fetched at the same time.
_FETCH_THREADS = 4
#: How long the payload of a call is kept after the last moment at which its request may be launched. Seconds.
_SECONDS_AFTER_DEADLINE = 86400.0
#: How long an outage may last that only delays a reply, and the pause between two attempts. Seconds.
_FETCH_SECONDS, _FETCH_PAUSE_SECONDS = 60.0, 1.0


class CallFailed(PermanentError):  # noqa: N818
    """The container ended without a value of the function.

    Attributes:
        result: How the request ended.
    """

    def __init__(self, result: TaskResult) -> None:
        """Describe how the request of the call ended."""
        log = f"; what it wrote: ecs-queue logs {result.id}" if result.exit_code is not None else ""
        super().__init__(f"the call {result.id} ended as {result.state} without a value: {result.reason}{log}")
        self.result = result


class RemoteError(Exception):
    """The function raised an exception that cannot be made again here; its class and text are the message."""


class RemoteTraceback(Exception):  # noqa: N818 - as the standard library names it
    """The cause of an exception of a function: the traceback in the container."""

    def __init__(self, text: str) -> None:
        """Keep the text of the traceback."""
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Return the text as it is printed."""
        return f'\n"""\n{self.text}"""'


class CallFuture(Future[T]):
    """The future of a call. `handle` is its request, once it was submitted.

    Callbacks run in the threads that end all calls: they must not wait for other calls.
    """

    handle: Handle

    def __init__(self, prepare_wait: Callable[[Sequence[CallFuture[Any]], float | None], float | None]) -> None:
        """Create the future of a call that has not ended.

        `prepare_wait([future], timeout)` returns how long to wait at most, and raises where waiting would never end.
        """
        super().__init__()
        self._prepare_wait = prepare_wait

    def result(self, timeout: float | None = None) -> T:
        """Return the value, or raise what the function raised; `UsageError` in a callback of another call."""
        if not self.done():
            timeout = self._prepare_wait([self], timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the function raised, None after a value; `UsageError` in a callback of another call."""
        if not self.done():
            timeout = self._prepare_wait([self], timeout)
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Stop the request; True when it was revoked before its launch, see `Handle.cancel`."""
        if self.done():
            return self.cancelled()
        return self.handle.cancel()

    def running(self) -> bool:
        """Return whether its container is being launched or runs, as the ledger says now."""
        return not self.done() and self.handle.running()


class EcsExecutor(Executor):
    """Runs importable functions in containers. Thread-safe.

    The image needs the same function, and ecs-queue; docs/functions.md says what the container needs else. A call may
    run twice only when `relaunch` allows it, as every request.
    """

    def __init__(
        self,
        client: EcsQueue,
        *,
        serializer: Serializer = "json",
        s3: str = "",
        max_bytes: int | None = None,
        command: Sequence[str] = COMMAND,
        store: CallStore | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        """Create an executor on an open client, which stays open when the executor is shut down.

        Args:
            client: The client.
            serializer: "json" for arguments and values that msgspec can write; "cloudpickle" for everything else,
                which needs signing_keys.
            s3: Where calls and values are kept, `s3://BUCKET/PREFIX`; without it on the ledger's server.
            max_bytes: The largest call and value; 1 MiB on the ledger's server, 256 MiB in S3.
            command: What runs in the container.
            store: Where calls and values are kept, for tests.
            options: Of every request, such as queue, cpu, memory, time_limit and relaunch; not id.

        Raises:
            UsageError: cloudpickle without signing_keys, or an `id`.
        """
        if options.get("id") is not None:
            raise UsageError("EcsExecutor: every call has an id of its own; leave id out")
        self._queue = client
        self._options = options
        self._queue_name = canonical_queue_name(options.get("queue") or "default")
        self._keys = RunnerKeys(runner_keys(client.config, self._queue_name))
        if serializer == "cloudpickle" and not client.keyring.has_signing_keys:
            raise UsageError("serializer='cloudpickle' needs signing_keys: nothing unsigned is unpickled")
        self._serializer: Serializer = serializer
        self._s3 = s3
        self._max_bytes = max_bytes or (MAX_S3_BYTES if s3 else MAX_BYTES)
        self._command = list(command)
        self._store = store or _open_store(client, s3)
        self._own_thread = threading.local()
        self._fetchers = ThreadPoolExecutor(
            _FETCH_THREADS, "ecs-queue-calls", initializer=setattr, initargs=(self._own_thread, "is_fetcher", True)
        )
        self._lock = threading.Lock()
        self._pending: set[CallFuture[Any]] = set()
        self._is_shut_down = False
        self._cancels = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> CallFuture[T]:
        """Run `fn(*args, **kwargs)` in a container.

        Returns:
            Its future. `result` returns the value, or raises what the function raised, with the container's traceback
            as its cause; `CallFailed` when the container ended without either.

        Raises:
            UsageError: The function cannot be imported, or the call cannot be written or is too large.
            RuntimeError: The executor was shut down.
        """
        options = CallOptions(
            id=f"call-{uuid.uuid4().hex}",
            namespace=self._queue.config.namespace,
            queue=self._queue_name,
            serializer=self._serializer,
            max_bytes=self._max_bytes,
            s3=self._s3,
        )
        call = encode_call(fn, args, kwargs, self._serializer)
        encrypts = self._queue.keyring.has_encryption_keys
        payload = seal(call, options, "in", self._keys, encrypts=encrypts)
        if len(payload) > self._max_bytes:
            raise UsageError(
                f"the call has {len(payload)} bytes, more than max_bytes ({self._max_bytes}): pass a reference, such "
                "as in S3"
            )
        future = CallFuture[T](self._prepare_wait)
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._pending.add(future)
        try:
            self._send(future, options, payload)
        except BaseException:
            self._cancel(future)  # a shutdown in another thread may wait for it
            raise
        future.handle.add_done_callback(lambda _: self._on_end(future, options, fn))
        if self._cancels:
            future.cancel()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; `cancel_futures` stops those that have not ended, `wait` waits for all of them.

        Raises:
            UsageError: A callback of a call waits for the others.
        """
        if wait:
            self._prepare_wait([], None)
        with self._lock:
            self._is_shut_down = True
            self._cancels = self._cancels or cancel_futures
            pending = list(self._pending)
        if cancel_futures:  # `submit` cancels a call that another thread is submitting now
            self._queue.cancel_many([future.handle for future in pending if hasattr(future, "handle")])
        if wait:
            self._prepare_wait(pending, None)
            _wait_for(pending)
            self._fetchers.shutdown()
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def _prepare_wait(self, futures: Sequence[CallFuture[Any]], timeout: float | None) -> float | None:
        """Return how long to wait for the calls; an `ecs_queue.testing.MemoryQueue` works until they have ended.

        Raises:
            UsageError: The thread is one that ends calls, or the process was forked from the client's.
        """
        if self._queue.results.is_own_thread or getattr(self._own_thread, "is_fetcher", False):
            raise UsageError(
                "a callback of a call waits for another one in a thread that ends the calls: it might wait for ever; "
                "hand the waiting to a thread of your own"
            )
        handles = [future.handle for future in futures if hasattr(future, "handle")]
        if handles:
            self._queue.results.prepare_wait(timeout, lambda: all(handle.done() for handle in handles))
        return None if timeout is None else min(timeout, threading.TIMEOUT_MAX)

    def _send(self, future: CallFuture[Any], options: CallOptions, payload: bytes) -> None:
        given = self._options.copy()
        given["id"] = options.id
        given["environment"] = {
            **(self._options.get("environment") or {}),
            CALL_VARIABLE: msgspec.json.encode(options).decode(),
        }
        prepared = self._queue.prepare(Request(command=self._command, **given).to_task_line())
        seconds = prepared.submission.expires_at - prepared.request.submitted_at  # a delay is part of it
        with self._queue.submitting([prepared]):
            self._store.put(options.id, "in", payload, max(0.0, seconds) + _SECONDS_AFTER_DEADLINE)
            (future.handle,) = self._queue.submit_prepared([prepared])

    def _on_end(self, future: CallFuture[Any], options: CallOptions, fn: Callable[..., Any]) -> None:
        """End the future; what has to be fetched is fetched in another thread than the one that reads all results."""
        error = future.handle.exception()
        is_revoked = error is None and future.handle.outcome(0).state == State.REVOKED
        try:
            if is_revoked:
                self._fetchers.submit(self._drop, options.id)
            else:
                self._fetchers.submit(self._finish, future, options, fn, error)
        except RuntimeError:  # shut down without waiting, and the interpreter ends
            self._pending.discard(future)
        if is_revoked:
            self._cancel(future)

    def _cancel(self, future: CallFuture[Any]) -> None:
        """End the future as cancelled."""
        Future.cancel(future)
        future.set_running_or_notify_cancel()
        self._pending.discard(future)

    def _finish(
        self, future: CallFuture[Any], options: CallOptions, fn: Callable[..., Any], error: BaseException | None
    ) -> None:
        try:
            if error is not None:
                raise error
            reply = self._take_reply(future.handle, options)
            if reply.raised:
                raise self._rebuild(reply)
            value = decode_value(reply.value, fn, self._serializer)
        except BaseException as raised:  # noqa: BLE001 - `result` of the future raises it
            future.set_exception(raised)
        else:
            future.set_result(value)
        finally:
            self._pending.discard(future)

    def _take_reply(self, handle: Handle, options: CallOptions) -> Reply:
        """Return the reply of a call that has ended, and drop its payloads; raise `CallFailed` when there is none."""
        denied = None
        try:
            payload = self._fetch(options)
        except MissingRight as error:
            if handle.outcome(0).succeeded:  # there is a value
                raise
            denied, payload = error, None  # what S3 answers for a missing value where nothing may be listed
        result = handle.result(0)
        if result.state != State.UNKNOWN:  # its container may still have to read the call
            self._drop(options.id)
        if payload is None:
            raise CallFailed(result) from denied
        return open_reply(payload, options, self._keys)

    def _fetch(self, options: CallOptions) -> bytes | None:
        """Return the payload of a reply; an outage of the store raises when it lasts."""
        deadline = time.monotonic() + _FETCH_SECONDS
        while True:
            try:
                return self._store.get(options.id, "out", options.max_bytes)
            except LedgerUnavailable as error:
                if time.monotonic() >= deadline:
                    raise
                logger.debug("The value of %s is fetched again later: %s", options.id, error)
            time.sleep(_FETCH_PAUSE_SECONDS)

    def _drop(self, call_id: str) -> None:
        """Drop the payloads of a call that has ended; else the server or the bucket's rule drops them later."""
        try:
            self._store.delete(call_id)
        except (LedgerUnavailable, MissingRight) as error:
            logger.debug("The payloads of %s were not dropped: %s", call_id, error)

    def _rebuild(self, reply: Reply) -> BaseException:
        """Return the exception of the function, or one that says what it was."""
        error: BaseException = RemoteError(f"{reply.raised}: {reply.text}")
        with suppress(Exception):  # its constructor wants something else: it stays a RemoteError
            if reply.value:
                error = decode_error(reply.value, _find_exception(reply.raised), self._serializer) or error
        error.__cause__ = RemoteTraceback(reply.traceback)
        return error


def _wait_for(futures: Sequence[CallFuture[Any]]) -> None:
    wait(futures)


def _find_exception(path: str) -> type[Exception] | None:
    """Return the exception of this path if its module is loaded here: a reply must not cause an import."""
    module, _, name = path.rpartition(".")
    kind = getattr(builtins if module == "builtins" else sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _open_store(queue: EcsQueue, s3: str) -> CallStore:
    if s3:
        return S3CallStore(s3)
    if queue.config.ledger_url.startswith("memory:"):
        raise UsageError("a ledger in memory keeps no calls for containers: give s3= or store=")
    return RedisCallStore(queue.config.ledger_url, queue.config.namespace, iam=queue.config.ledger_iam)
