"""The server: an event loop in a thread of its own, or a foreground process until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ecs_queue.errors import UsageError
from ecs_queue.local.ecs.arns import ArnCodec
from ecs_queue.local.ecs.catalog import Catalog
from ecs_queue.local.ecs.client_tokens import ClientTokenStore
from ecs_queue.local.ecs.faults import ApiThrottle, FaultInjector
from ecs_queue.local.ecs.operations import TaskOperations
from ecs_queue.local.ecs.options import LocalEcsOptions
from ecs_queue.local.ecs.processes import ProcessRunner
from ecs_queue.local.ecs.runners import ContainerRunner
from ecs_queue.local.ecs.task_manager import TaskManager
from ecs_queue.local.ecs.tasks import LocalTask

if TYPE_CHECKING:
    from ecs_queue.local.ecs.endpoint import Endpoint
    from ecs_queue.local.ecs.events import EventSender

HOST = "127.0.0.1"
_AIOHTTP_MISSING = "the local ECS needs aiohttp: pip install 'ecs-queue[local]'"
_SHUTDOWN_SECONDS = 1.0  # for answers under way when the server stops
_BACKLOG = 1024  # load tests open hundreds of connections at once


class LocalEcs:
    """A local ECS on 127.0.0.1; ``start`` returns when it answers, ``stop`` when all its processes have
    ended.

    runner: what main containers really do; None runs their commands as local processes.
    clock: seconds since 1970, for timestamps, retention and tokens. new_id: 32 hexadecimal digits.
    State lives from ``start`` to ``stop``. The methods may be called from any thread.
    """

    def __init__(
        self,
        options: LocalEcsOptions | None = None,
        runner: ContainerRunner | None = None,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._options = options or LocalEcsOptions()
        self._runner = runner or ProcessRunner()
        self._clock = clock
        self._new_id = new_id
        self._arns = ArnCodec(self._options.region, self._options.account)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._port = self._options.port
        self._endpoint: Endpoint | None = None
        self._task_manager: TaskManager | None = None
        self._event_sender: EventSender | None = None

    @property
    def port(self) -> int:
        """The port it listens on. UsageError before the first start when it is to be a free one."""
        if not self._port:
            raise UsageError("the local ECS has no port yet: call start() first")
        return self._port

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, unless it runs already. UsageError: the port is taken, or aiohttp is missing."""
        if self._thread is not None:
            return
        ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, args=(ready,), name="local-ecs", daemon=True)
        self._thread.start()
        ready.wait()
        failure = self._pop_failure()
        if failure is not None:
            self._thread.join()
            self._thread = None
            raise failure

    def stop(self) -> None:
        """Stop answering, kill every process group of a task. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        assert self._stop_requested is not None
        self._loop.call_soon_threadsafe(self._stop_requested.set)
        thread.join()
        self._port = self._options.port

    def stats(self) -> dict[str, Any]:
        """Counters since the start: ``calls`` and ``throttled`` by operation, ``errors`` by code, ``faults``
        by kind,
        ``tasks`` by lastStatus (those that can be described now), ``tasks_created``, ``events`` that were sent."""
        if self._endpoint is None or self._task_manager is None:
            raise UsageError("the local ECS has no counters yet: call start() first")
        return {
            "calls": dict(self._endpoint.calls),
            "throttled": dict(self._endpoint.throttled),
            "errors": dict(self._endpoint.errors),
            "faults": dict(self._endpoint.faults),
            "tasks": {status: count for status, count in dict(self._task_manager.status_counts).items() if count},
            "tasks_created": self._task_manager.created_count,
            "events": self._event_sender.sent_count if self._event_sender else 0,
        }

    def log_path(self, task_id: str) -> Path:
        """The file with a task's stdout and stderr, by id or ARN; it exists once the command was started."""
        if self._task_manager is None:
            raise UsageError("the local ECS has no logs yet: call start() first")
        return self._task_manager.log_path(self._arns.task_id(task_id))

    def __enter__(self) -> LocalEcs:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _pop_failure(self) -> BaseException | None:
        failure, self._failure = self._failure, None
        return failure

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._main(ready))
        except BaseException as error:  # noqa: BLE001 - start() raises it in the caller's thread
            self._failure = error
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop, self._stop_requested = asyncio.get_running_loop(), asyncio.Event()
        with _log_directory(self._options.log_dir) as log_dir, self._sending_events():
            await self._runner.open()
            try:
                async with self._listening(log_dir):
                    ready.set()
                    await self._stop_requested.wait()
            finally:
                await self._runner.close()

    @contextlib.contextmanager
    def _sending_events(self) -> Iterator[None]:
        """Send events, where they are wanted."""
        options = self._options
        if options.event_queue_url is None:
            yield
            return
        from ecs_queue.local.ecs.events import EventSender  # boto3 takes its time

        sender = EventSender(
            options.event_queue_url, options.region, options.account, options.event_faults, self._clock
        )
        self._event_sender = sender
        sender.start()
        try:
            yield
        finally:
            sender.stop()

    def _send_event(self, task: LocalTask) -> None:
        if self._event_sender is not None:
            self._event_sender.send(bytes(task.json()))

    @contextlib.asynccontextmanager
    async def _listening(self, log_dir: Path) -> AsyncIterator[None]:
        try:
            from aiohttp import web
        except ImportError as error:
            raise UsageError(_AIOHTTP_MISSING) from error
        self._endpoint = self._build_endpoint(log_dir)
        server = web.ServerRunner(
            web.Server(self._endpoint.handle, access_log=None), shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await server.setup()
        try:
            site = web.TCPSite(server, HOST, self._options.port, backlog=_BACKLOG)
            try:
                await site.start()
            except OSError as error:
                message = f"cannot listen on {HOST}:{self._options.port}: {error.strerror}; choose another port"
                raise UsageError(message) from error
            self._port = server.addresses[0][1]
            yield
        finally:
            await server.cleanup()

    def _build_endpoint(self, log_dir: Path) -> Endpoint:
        """Wire the parts together."""
        from ecs_queue.local.ecs.endpoint import Endpoint, build_operations

        options = self._options
        tokens = ClientTokenStore(options.client_token_seconds, options.client_token_after_stop_seconds)
        workshop = TaskManager(
            options,
            self._arns,
            self._runner,
            tokens,
            log_dir=log_dir,
            base_environment=base_environment(options),
            clock=self._clock,
            new_id=self._new_id,
            on_change=self._send_event,
        )
        catalog = Catalog(self._arns, self._clock, workshop.active_counts)
        _register_defaults(catalog, options)
        self._task_manager = workshop
        operations = TaskOperations(self._arns, catalog, workshop, tokens, self._clock)
        return Endpoint(
            build_operations(operations, catalog),
            ApiThrottle(options.run_task_quota, options.describe_tasks_quota, time.monotonic),
            FaultInjector(options.faults),
            latency=options.latency_seconds,
            stats=self.stats,
            new_id=self._new_id,
        )


def run_local_ecs(
    options: LocalEcsOptions, on_ready: Callable[[str], None], runner: ContainerRunner | None = None
) -> None:
    """Run a local ECS in the foreground until SIGINT or SIGTERM; ``ready`` gets its URL. Main thread only."""
    over = threading.Event()
    previous = {number: signal.signal(number, lambda *_: over.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with LocalEcs(options, runner) as server:
            on_ready(server.endpoint_url)
            over.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def base_environment(options: LocalEcsOptions) -> dict[str, str]:
    """What every container gets before its own variables: PATH and HOME of the user, and Fargate's AWS
    variables.

    Nothing else of the server's environment reaches a task. There is no ECS_CONTAINER_METADATA_URI: no
    metadata endpoint is modelled.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **inherited,
        "AWS_REGION": options.region,
        "AWS_DEFAULT_REGION": options.region,
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
    }


def _register_defaults(catalog: Catalog, options: LocalEcsOptions) -> None:
    """What exists from the start, so that nobody has to set anything up."""
    for name in options.clusters:
        catalog.create_cluster({"clusterName": name})
    catalog.register_task_definition(
        {
            "family": options.task_definition,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "containerDefinitions": [{"name": options.container_name, "image": "local", "command": ["true"]}],
        }
    )


@contextlib.contextmanager
def _log_directory(given: Path | None) -> Iterator[Path]:
    """The directory of the logs; one of our own ends with the server."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    own = Path(tempfile.mkdtemp(prefix="ecs-queue-logs-"))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
