"""The server: an event loop in a separate thread, or in the foreground until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ecs_queue.errors import UsageError
from ecs_queue.local.ecs.arns import ArnCodec
from ecs_queue.local.ecs.catalog import Catalog
from ecs_queue.local.ecs.client_tokens import ClientTokenStore
from ecs_queue.local.ecs.container_metadata import MetadataPages
from ecs_queue.local.ecs.faults import ApiThrottle, FaultInjector
from ecs_queue.local.ecs.operations import TaskOperations
from ecs_queue.local.ecs.options import FaultOptions, LocalEcsOptions
from ecs_queue.local.ecs.processes import ProcessRunner
from ecs_queue.local.ecs.runners import ContainerRunner
from ecs_queue.local.ecs.task_manager import TaskManager
from ecs_queue.local.ecs.tasks import LocalTask
from ecs_queue.local.private_files import OwnedDirectory, make_private_directory
from ecs_queue.local.stop_signals import StopSignals

if TYPE_CHECKING:
    from ecs_queue.local.ecs.endpoint import Endpoint
    from ecs_queue.local.ecs.events import EventSender

HOST = "127.0.0.1"
_AIOHTTP_MISSING = "the local ECS needs aiohttp: pip install 'ecs-queue[local]'"
_SHUTDOWN_SECONDS = 1.0  # for responses in progress when the server stops
_BACKLOG = 1024  # load tests open hundreds of connections at once


class LocalEcs:
    """A local ECS on 127.0.0.1. Its state exists from `start` to `stop`. Thread-safe."""

    def __init__(
        self,
        options: LocalEcsOptions | None = None,
        runner: ContainerRunner | None = None,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Configure the server; `start` starts it.

        Args:
            options: how it behaves.
            runner: runs main containers; None runs their commands as local processes.
            clock: seconds since the epoch, for timestamps, retention and tokens.
            new_id: returns 32 hexadecimal digits.
        """
        self._options = options or LocalEcsOptions()
        self._runner = runner or ProcessRunner()
        self._clock = clock
        self._new_id = new_id
        self._arns = ArnCodec(self._options.region, self._options.account)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested: asyncio.Event | None = None
        self._port = self._options.port
        self._endpoint: Endpoint | None = None
        self._task_manager: TaskManager | None = None
        self._event_sender: EventSender | None = None

    @property
    def port(self) -> int:
        """The port that it listens on. UsageError before the first start if a free port is to be chosen."""
        if not self._port:
            raise UsageError("the local ECS has no port yet: call start() first")
        return self._port

    @property
    def endpoint_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start the server, if it is not running, and return when it accepts calls.

        Raises:
            UsageError: the port is taken, or aiohttp is not installed.
        """
        if self._thread is not None:
            return
        started = Future[None]()
        self._thread = threading.Thread(target=self._run, args=(started,), name="local-ecs", daemon=True)
        self._thread.start()
        failure = started.exception()
        if failure is not None:
            self._thread.join()
            self._thread = None
            raise failure

    def stop(self) -> None:
        """Stop the server, and return when all processes of tasks were killed. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        assert self._stop_requested is not None
        self._loop.call_soon_threadsafe(self._stop_requested.set)
        thread.join()
        self._port = self._options.port

    def stats(self) -> dict[str, Any]:
        """Return counters since the start.

        `calls` and `throttled` are by operation, `errors` by code, `faults` by kind; `tasks` counts the tasks that can
        be described now by lastStatus; `tasks_created` and `events` count created tasks and sent events.
        """
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

    def inject_faults(self, faults: FaultOptions) -> None:
        """Inject these faults, instead of those of the options, from the next call on."""
        if self._endpoint is None:
            raise UsageError("the local ECS answers no calls yet: call start() first")
        self._endpoint.inject_faults(FaultInjector(faults, time.monotonic))

    @property
    def log_dir(self) -> Path:
        """The directory of the tasks' logs. UsageError before the first start."""
        return self._manager_with_logs().log_dir

    def log_path(self, task_id: str) -> Path:
        """Return the file of a task's stdout and stderr, by id or ARN; it exists after the command was started."""
        return self._manager_with_logs().log_path(self._arns.task_id(task_id))

    def __enter__(self) -> LocalEcs:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _manager_with_logs(self) -> TaskManager:
        if self._task_manager is None:
            raise UsageError("the local ECS has no logs yet: call start() first")
        return self._task_manager

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._main(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)  # start() raises it in the caller's thread

    async def _main(self, started: Future[None]) -> None:
        self._loop, self._stop_requested = asyncio.get_running_loop(), asyncio.Event()
        with _log_directory(self._options.log_dir) as log_dir, self._sending_events():
            await self._runner.open()
            try:
                async with self._listening(log_dir):
                    started.set_result(None)
                    await self._stop_requested.wait()
            finally:
                await self._runner.close()

    @contextlib.contextmanager
    def _sending_events(self) -> Iterator[None]:
        """Run the event sender if there is an event queue."""
        options = self._options
        if options.event_queue_url is None:
            yield
            return
        from ecs_queue.local.ecs.events import EventSender  # importing boto3 is slow

        self._event_sender = EventSender(
            options.event_queue_url, options.region, options.account, options.event_faults, self._clock
        )
        self._event_sender.start()
        try:
            yield
        finally:
            self._event_sender.stop()

    def _send_event(self, task: LocalTask) -> None:
        if self._event_sender is not None:
            self._event_sender.send(bytes(task.json()))

    @contextlib.asynccontextmanager
    async def _listening(self, log_dir: Path) -> AsyncIterator[None]:
        try:
            from aiohttp import web
        except ImportError as error:
            raise UsageError(_AIOHTTP_MISSING) from error
        from ecs_queue.local.ecs.timed_server import TimedServer

        self._endpoint = self._build_endpoint(log_dir)
        server = web.ServerRunner(
            TimedServer(self._endpoint.handle, self._options.receive_timeout_seconds),
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await server.setup()
        try:
            site = web.TCPSite(server, HOST, self._options.port, backlog=_BACKLOG)
            try:
                await site.start()
            except OSError as error:
                raise UsageError(
                    f"cannot listen on {HOST}:{self._options.port}: {error.strerror}; choose another port"
                ) from error
            self._port = server.addresses[0][1]
            yield
        finally:
            await server.cleanup()

    def _build_endpoint(self, log_dir: Path) -> Endpoint:
        """Create and connect the parts."""
        from ecs_queue.local.ecs.endpoint import Endpoint, build_operations

        options = self._options
        metadata_pages = MetadataPages()
        tokens = ClientTokenStore(options.client_token_seconds, options.client_token_after_stop_seconds)
        task_manager = TaskManager(
            options,
            self._arns,
            self._runner,
            tokens,
            log_dir=log_dir,
            base_environment=base_environment(options),
            metadata_pages=metadata_pages,
            endpoint_url=lambda: self.endpoint_url,
            clock=self._clock,
            new_id=self._new_id,
            on_change=self._send_event,
        )
        catalog = Catalog(self._arns, self._clock, task_manager.active_counts)
        _register_defaults(catalog, options)
        self._task_manager = task_manager
        return Endpoint(
            build_operations(TaskOperations(self._arns, catalog, task_manager, tokens, self._clock), catalog),
            ApiThrottle(options.run_task_quota, options.describe_tasks_quota, time.monotonic),
            FaultInjector(options.faults, time.monotonic),
            metadata_pages,
            access_key_id=options.access_key_id,
            region=options.region if options.checks_region else None,
            receive_timeout=options.receive_timeout_seconds,
            latency=options.latency_seconds,
            stats=self.stats,
            new_id=self._new_id,
        )


def run_local_ecs(
    options: LocalEcsOptions, on_ready: Callable[[str], None], runner: ContainerRunner | None = None
) -> None:
    """Run a local ECS in the foreground until SIGINT, SIGTERM or SIGHUP; call it on the main thread.

    Args:
        options: how it behaves.
        on_ready: gets the endpoint's URL.
        runner: see `LocalEcs`.
    """
    with StopSignals() as signals, LocalEcs(options, runner) as server:
        on_ready(server.endpoint_url)
        signals.wait(None)


def base_environment(options: LocalEcsOptions) -> dict[str, str]:
    """Return the variables of every container: PATH and HOME of the user, and Fargate's AWS variables.

    No other variable of the server's environment reaches a task. Each container gets its own
    ECS_CONTAINER_METADATA_URI_V4 too.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **inherited,
        "AWS_REGION": options.region,
        "AWS_DEFAULT_REGION": options.region,
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
    }


def _register_defaults(catalog: Catalog, options: LocalEcsOptions) -> None:
    """Register the clusters and the task definition of the options, so that no set-up is needed."""
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
    """The directory of the logs; a temporary one is removed at the end."""
    if given is not None:
        make_private_directory(given)
        yield given.absolute()
        return
    with contextlib.closing(OwnedDirectory.make_temporary("logs")) as directory:
        yield directory.path
