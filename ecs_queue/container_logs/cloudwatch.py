"""The log of a container in CloudWatch Logs, as the awslogs driver writes it: PREFIX/CONTAINER/TASK-ID."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from ecs_queue.container_logs.base import LogBusy, LogLine, LogUnavailable, Page
from ecs_queue.ecs.awslogs import awslogs_options
from ecs_queue.ecs.classify import classify_read_error
from ecs_queue.error_text import error_text
from ecs_queue.protocol.ecs_results import EcsErrorKind

#: The driver sends its last lines before ECS shows the task as stopped; CloudWatch shows them some moments later.
_SETTLE_SECONDS = 5.0
#: GetLogEvents returns at most 10,000 events or 1 MB.
_PAGE_LINES = 10_000
_MAX_TAIL_PAGES = 100


class _TokenExpired(Exception):  # noqa: N818
    """CloudWatch does not take the token any more."""


class CloudWatchLog:
    """Reads one log stream with GetLogEvents. A stream that does not exist has no lines yet.

    A token is valid for 24 hours; when it has expired, reading goes on after the last line that was read. Those of
    the same millisecond that `tail` left out may come then.
    """

    settle_seconds = _SETTLE_SECONDS

    def __init__(
        self, client: Any, group: str, stream: str, *, tail: int | None = None, since: float | None = None
    ) -> None:
        """Read from the start, from the time `since` on (seconds since the epoch), or the newest `tail` lines on."""
        self.source = f"CloudWatch {group}, {stream}"
        self._client = client
        self._place: dict[str, Any] = {"logGroupName": group, "logStreamName": stream}
        if since is not None:
            self._place["startTime"] = round(since * 1000)
        self._tail = tail
        self._token: str | None = None
        #: The newest timestamp that was read, in milliseconds, and how many events had it.
        self._last, self._number_at_last = 0, 0
        self._number_to_skip = 0
        self._group = group
        self.missing = ""

    def read(self) -> Page:
        """See `LogReader`."""
        if self._tail is not None:
            return self._read_tail(self._tail)
        token = {} if self._token is None else {"nextToken": self._token}
        try:
            response = self._get_events(startFromHead=True, limit=_PAGE_LINES, **token)
        except _TokenExpired:
            self._begin_after_last()
            return self.read()
        if response is None:
            return Page([], True)
        # A token that stays the same is CloudWatch's sign that nothing follows.
        is_last = response["nextForwardToken"] == self._token
        self._token = response["nextForwardToken"]
        return Page([_to_line(event) for event in self._take_new(response["events"])], is_last)

    def read_rest(self) -> list[LogLine]:
        """See `LogReader`: every event is complete."""
        return []

    def _read_tail(self, limit: int) -> Page:
        """Read pages from the end until there are enough lines. What a stream has that begins later is new."""
        pages: deque[list[LogLine]] = deque()
        forward: str | None = None
        token: dict[str, str] = {}
        for _ in range(_MAX_TAIL_PAGES):
            response = self._get_events(startFromHead=False, limit=min(max(limit, 1), _PAGE_LINES), **token)
            if response is None:
                self._tail = None
                return Page([], True)
            if forward is None:
                forward = response["nextForwardToken"]
                self._take_new(response["events"])
            pages.appendleft([_to_line(event) for event in response["events"]])
            is_first = response["nextBackwardToken"] == token.get("nextToken")
            if is_first or sum(map(len, pages)) >= limit:
                break
            token = {"nextToken": response["nextBackwardToken"]}
        self._tail, self._token = None, forward
        lines = [line for page in pages for line in page]
        return Page(lines[len(lines) - min(limit, len(lines)) :], False)

    def _begin_after_last(self) -> None:
        """Ask without a token from the newest timestamp on; pass over the events that were read."""
        self._token = None
        if self._number_at_last:
            self._place["startTime"], self._number_to_skip = self._last, self._number_at_last

    def _take_new(self, events: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return the events that were not read before, and count those of the newest timestamp."""
        first = 0
        while first < len(events) and self._number_to_skip and events[first]["timestamp"] == self._last:
            first, self._number_to_skip = first + 1, self._number_to_skip - 1
        for event in events[first:]:
            self._number_to_skip = 0
            self._number_at_last = self._number_at_last + 1 if event["timestamp"] == self._last else 1
            self._last = event["timestamp"]
        return events[first:]

    def _get_events(self, **arguments: Any) -> Mapping[str, Any] | None:
        """Return the response; None while the stream does not exist. _TokenExpired: that of the last page has."""
        try:
            response: Mapping[str, Any] = self._client.get_log_events(**self._place, **arguments)
        except self._client.exceptions.ResourceNotFoundException as error:
            # A group may come with its first stream, too: awslogs-create-group.
            what = "group" if "group" in error.response["Error"].get("Message", "") else "stream"
            self.missing = f"there is no such log {what}: the container wrote nothing, or it was deleted"
            return None
        except (ClientError, BotoCoreError) as error:
            if self._token is not None and isinstance(error, self._client.exceptions.InvalidParameterException):
                raise _TokenExpired from error
            raise explain_aws_error(error, f"logs:GetLogEvents on {self._group}") from error
        self.missing = ""
        return response


def open_cloudwatch_log(
    ecs: Any,
    make_logs_client: Callable[[str | None], Any],
    task_definition: str,
    container: str | None,
    task_id: str,
    *,
    tail: int | None = None,
    since: float | None = None,
) -> CloudWatchLog:
    """Return the log of a task's container.

    Args:
        ecs: A boto3 client, for DescribeTaskDefinition.
        make_logs_client: Returns a client of CloudWatch Logs in a Region; None is the task's own Region.
        task_definition: Its name or ARN.
        container: Its name; None where the task definition has only one.
        task_id: The last part of the task's ARN.
        tail: Read this number of the newest lines, and what follows.
        since: Read from this time on, in seconds since the epoch.

    Raises:
        LogUnavailable: The task definition cannot be read, or has no awslogs driver for the container.
        LogBusy: AWS cannot be reached now.
    """
    try:
        definition = ecs.describe_task_definition(taskDefinition=task_definition)["taskDefinition"]
    except (ClientError, BotoCoreError) as error:
        raise explain_aws_error(error, "ecs:DescribeTaskDefinition") from error
    name = container or _only_container(definition)
    options = awslogs_options(definition, name)
    if isinstance(options, str):
        raise LogUnavailable(options)
    stream = f"{options['awslogs-stream-prefix']}/{name}/{task_id}"
    return CloudWatchLog(
        make_logs_client(options.get("awslogs-region")), options["awslogs-group"], stream, tail=tail, since=since
    )


def find_task_definition(ecs: Any, arn: str) -> str | None:
    """Return the ARN of a task's definition; None when ECS does not know the task, or its cluster, any more.

    Raises:
        LogUnavailable, LogBusy: ECS refuses, or cannot be reached now.
    """
    try:
        found = ecs.describe_tasks(cluster=arn.split("/")[-2], tasks=[arn])["tasks"]
    except ecs.exceptions.ClusterNotFoundException:
        return None
    except (ClientError, BotoCoreError) as error:
        raise explain_aws_error(error, "ecs:DescribeTasks") from error
    return str(found[0]["taskDefinitionArn"]) if found else None


def _only_container(definition: Mapping[str, Any]) -> str | None:
    names = [str(each["name"]) for each in definition["containerDefinitions"]]
    if len(names) > 1:
        raise LogUnavailable(f"the task has the containers {', '.join(names)}: choose one with --container")
    return names[0]


def explain_aws_error(error: Exception, call: str) -> LogUnavailable | LogBusy:
    """Return what an exception of botocore means for reading a log. `call`: what was called, on what."""
    if isinstance(error, NoCredentialsError):
        return LogUnavailable("there are no AWS credentials here to read the log with: set AWS_PROFILE, or log in")
    found = classify_read_error(error)
    reason = found.reason if isinstance(error, ClientError) else f"AWS was not reached: {error_text(error)}"
    is_busy = found.kind in (EcsErrorKind.THROTTLED, EcsErrorKind.UNAVAILABLE)
    return (LogBusy if is_busy else LogUnavailable)(f"{call}: {reason.rstrip('.')}")


def _to_line(event: Mapping[str, Any]) -> LogLine:
    return LogLine(event["timestamp"] / 1000, str(event["message"]))
