"""Opens and follows the container logs of a request's attempts."""

from __future__ import annotations

import functools
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.output import print_stderr
from ecs_queue.cli.ui.runner_lines import lines_of_launch
from ecs_queue.container_logs.base import LogLine, LogReader, LogUnavailable
from ecs_queue.container_logs.follow import follow_log, read_log, retry_while_busy
from ecs_queue.container_logs.local_files import LOCAL_LOG_VARIABLE, open_local_file
from ecs_queue.errors import EcsQueueError, LedgerUnavailable
from ecs_queue.outage_log import OutageLine, OutageLog
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.runner.log_lines import start_text

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.ecs.clients import EcsClients, Target
    from ecs_queue.protocol.record import Record

_ARN = re.compile(r"arn:[a-z-]+:ecs:([a-z0-9-]+):\d+:task/[A-Za-z0-9_-]+/([A-Za-z0-9_-]+)")
#: Of each call to AWS: someone waits for the answer.
_CONNECT_SECONDS, _READ_SECONDS = 3.0, 5.0
#: Between two looks at a request that has no container yet; doubled up to the second. Seconds.
_MIN_PAUSE, _MAX_PAUSE = 0.1, 1.0
#: A runner's log is read from this time before the launch on, since its host has another clock than the ledger.
_CLOCK_SECONDS = 900.0


@dataclass(frozen=True, repr=False)
class LogChoice(PayloadRepr):
    """Which container's lines: `container` None is the main one; only the `newest` ones; only from `since` on."""

    container: str | None = None
    newest: int | None = None
    since: float | None = None


class LogOpener:
    """Opens logs with the credentials, role and Region that a worker uses for the request's queue."""

    def __init__(self, client: EcsQueue, environ: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._environ = os.environ if environ is None else environ
        self._clients: EcsClients | None = None

    def open(self, record: Record, arn: str, choice: LogChoice) -> LogReader:
        """Return the log of one of the request's tasks.

        Raises:
            LogUnavailable: It cannot be read; the sentence says why.
            LogBusy: AWS cannot be reached now.
            UsageError: The choice is impossible, or the queue's profile names no cluster or Region.
        """
        parts = _ARN.fullmatch(arn)
        if parts is None:
            raise LogUnavailable(f"the task's ARN {arn!r} is none that names a log")
        region, task_id = parts.groups()
        directory = self._environ.get(LOCAL_LOG_VARIABLE)
        is_runner = bool(record.run)
        if not directory:
            if is_runner:  # its newest lines may be of another request, and the mark of a start older than `since`
                launched_at = record.launched_at if arn == record.arn else 0.0
                since = launched_at - _CLOCK_SECONDS if launched_at else None
                choice = replace(choice, newest=None, since=since)
            return self._open_cloudwatch_log(record, arn, region, task_id, choice)
        if choice.container not in (None, record.container_name):
            raise LogUnavailable(f"the local ECS runs only the container {record.container_name or '?'} of a task")
        mark = start_text(record.id, record.launch) if is_runner and arn == record.arn else ""
        newest = None if is_runner else choice.newest
        return open_local_file(Path(directory), task_id, tail=newest, since=choice.since, mark=mark)

    def _open_cloudwatch_log(self, record: Record, arn: str, region: str, task_id: str, choice: LogChoice) -> LogReader:
        from botocore.exceptions import NoCredentialsError

        from ecs_queue.container_logs.cloudwatch import explain_aws_error, find_task_definition, open_cloudwatch_log

        profile = self._client.config.profile(record.queue)
        try:
            clients, target = self._find_target(record, region)
            ecs = clients.client(target)
        except NoCredentialsError as error:
            raise explain_aws_error(error, "reading the log") from error
        definition = find_task_definition(ecs, arn) or profile.task_definition
        if not definition:
            raise LogUnavailable(
                "ECS does not know the task any more, and task_definition is not set for its queue: set it, so that "
                "the name of its log can be found"
            )

        def make_logs_client(log_region: str | None) -> Any:
            return clients.client_for_service(target, "logs", region=log_region)

        container = choice.container or record.container_name or profile.container_name
        return open_cloudwatch_log(
            ecs, make_logs_client, definition, container, task_id, tail=choice.newest, since=choice.since
        )

    def _find_target(self, record: Record, region: str) -> tuple[EcsClients, Target]:
        """A target names a role and an endpoint: where there are signing keys, only a signed one is used."""
        from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
        from ecs_queue.worker.record_verification import RecordVerifier

        clients = self._clients or EcsClients(ClientOptions(_CONNECT_SECONDS, _READ_SECONDS, max_pool_connections=1))
        self._clients = clients
        config = self._client.config
        verifier = RecordVerifier(self._client.keyring, lambda name: clients.target_for(config.profile(name)))
        encoded = verifier.encoded_target(record)
        target = Target.decode(encoded) if encoded else clients.target_for(config.profile(record.queue))
        return clients, replace(target, region=region)


class RequestLog:
    """Follows a request's containers, attempt after attempt, from its present one to the request's end.

    Attributes:
        record: The record as the ledger last returned it.
    """

    def __init__(
        self,
        client: EcsQueue,
        record_id: str,
        opener: LogOpener,
        choice: LogChoice,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """Prepare to follow.

        Args:
            client: Reads the ledger.
            record_id: The request.
            opener: Opens the logs.
            choice: Which lines.
            wait: Waits for at most the given seconds, and returns whether the request has ended; None sleeps.
        """
        self._client = client
        self._id = record_id
        self._opener = opener
        self._choice = choice
        self._wait_for_end = wait or _sleep
        self._outage_log = OutageLog(time.monotonic, settle_seconds=0.0)
        self._has_ended = False
        self.record: Record | None = None

    def lines(self, only_launch: int | None = None) -> Iterator[tuple[Record, LogLine]]:
        """Yield each line with the record that names its launch, until the request, or this launch, has ended.

        Raises:
            LogUnavailable, UsageError: A log cannot be read.
        """
        choice, shown, pause = self._choice, 0, _MIN_PAUSE
        while True:
            record = self._look()
            if record is not None and record.arn and record.launch != shown:
                shown, pause = record.launch, _MIN_PAUSE
                wait = functools.partial(self._wait, shown)
                reader = retry_while_busy(functools.partial(self._opener.open, record, record.arn, choice), wait)
                for line in lines_of_record(follow_log(reader, wait, time.monotonic), record):
                    yield record, line
                if reader.missing:
                    print_stderr(f"ecs-queue: {reader.source}: {reader.missing}")
                choice = replace(choice, newest=None, since=None)
                if only_launch == shown:
                    return
                continue
            if record is None or record.is_terminal or self._has_ended:
                return
            self._has_ended = self._wait_for_end(pause)
            pause = min(pause * 2, _MAX_PAUSE)

    def _wait(self, launch: int, seconds: float) -> bool:
        """Wait, and return whether this launch has ended."""
        self._has_ended = self._wait_for_end(seconds) or self._has_ended
        if self._has_ended:
            return True
        record = self._look()
        return record is None or record.is_terminal or record.launch != launch

    def _look(self) -> Record | None:
        """Return the record; in an outage of the ledger the one of the last look."""
        try:
            self.record = self._client.ledger.get([self._id])[0]
            _print_outage(self._outage_log.record_success())
        except LedgerUnavailable as error:
            _print_outage(self._outage_log.record_failure(str(error)))
        return self.record


def lines_of_record(lines: Iterable[LogLine], record: Record) -> Iterator[LogLine]:
    """Yield those lines of a log that the record's present launch wrote."""
    return lines_of_launch(lines, record.id, record.launch, is_runner=bool(record.run))


def read_last_lines(
    client: EcsQueue, record: Record, limit: int, seconds: float, opener: LogOpener | None = None
) -> list[LogLine] | str:
    """Return the newest lines of the request's last container, or a sentence why they are not known.

    Args:
        client: Has the configuration.
        record: A request that has a task.
        limit: Maximum number of lines.
        seconds: How long to wait at most, whatever AWS does and however long the log is.
        opener: Opens the log; None makes one.
    """
    found: queue.SimpleQueue[list[LogLine] | str] = queue.SimpleQueue()

    def read() -> None:
        try:
            reader = (opener or LogOpener(client)).open(record, record.arn, LogChoice(newest=limit))
            found.put([*lines_of_record(read_log(reader, time.sleep), record)][-limit:])
        except EcsQueueError as error:
            found.put(str(error))
        except Exception as error:  # noqa: BLE001 - boto3's chain of credentials raises anything, and this is an extra
            found.put(f"{type(error).__name__} while the log was read")

    threading.Thread(target=read, name="container-log", daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return f"they could not be read within {seconds:g} s"


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _print_outage(line: OutageLine | None) -> None:
    if line is not None:
        print_stderr(f"ecs-queue: {line.describe('the ledger')}")
