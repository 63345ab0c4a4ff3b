"""A request as its caller writes it: the typed `Request`, or a task line with the same members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, TypedDict

from ecs_queue.messages.fields import Relaunch

#: Seconds, a text such as "90s", "30m" and "2h", or a timedelta.
Duration = float | str | timedelta


class RequestOptions(TypedDict, total=False):
    """The members of a `Request` beside its command, as keyword arguments."""

    queue: str | None
    id: str | None
    priority: int | None
    expires_in: Duration | None
    delay: Duration | None
    not_before: datetime | str | float | None
    time_limit: Duration | None
    start_timeout: Duration | None
    environment: Mapping[str, str] | None
    cpu: int | None
    memory: int | None
    executor_config: Mapping[str, Any] | None
    relaunch: Relaunch | None
    retry_rules: Sequence[Mapping[str, Any]] | None
    concurrency_key: str | None
    labels: Mapping[str, str] | None
    traceparent: str | None


@dataclass(frozen=True, repr=False, kw_only=True)
class Request:
    """One command to run, before it is submitted. What is None has its default.

    Attributes:
        command: The program and its arguments.
        queue: The queue, and with it the profile of the launch; "default".
        id: Its id, 1 to 48 of A-Z a-z 0-9 _ -; a new one. The same id with the same request is the same request.
        priority: 0 to 9; requests with a higher one are launched first. 0.
        expires_in: It is not launched later than this after its submission.
        delay: It is not launched before this time has passed; `expires_in` counts from then.
        not_before: The same as a time: a datetime with its zone, RFC 3339 text, or seconds since the epoch.
        time_limit: The task is stopped when it has run for this long.
        start_timeout: A task that has not started by then is stopped and launched again, in place of its queue's.
        environment: Variables of the main container.
        cpu: CPU units of the main container, 1024 for a vCPU.
        memory: The main container's memory in MiB.
        executor_config: Other overrides of the launch, flat for the main container, or in RunTask's form.
        relaunch: When it is launched again; "never_started".
        retry_rules: What follows an attempt that failed, in place of its queue's (docs/policies.md); []: none.
        concurrency_key: At most `max_per_key` requests of its queue with this key are in flight at a time.
        labels: What it is for, such as {"team": "data"}; its queue may make tags of them (docs/policies.md).
        traceparent: The trace (W3C) that the container continues.
    """

    command: Sequence[str]
    queue: str | None = None
    id: str | None = None
    priority: int | None = None
    expires_in: Duration | None = None
    delay: Duration | None = None
    not_before: datetime | str | float | None = None
    time_limit: Duration | None = None
    start_timeout: Duration | None = None
    environment: Mapping[str, str] | None = None
    cpu: int | None = None
    memory: int | None = None
    executor_config: Mapping[str, Any] | None = None
    relaunch: Relaunch | None = None
    retry_rules: Sequence[Mapping[str, Any]] | None = None
    concurrency_key: str | None = None
    labels: Mapping[str, str] | None = None
    traceparent: str | None = None

    def __repr__(self) -> str:
        """Return a text without command and environment: they hold secrets."""
        return f"Request(id={self.id!r}, queue={self.queue!r})"

    def to_task_line(self) -> dict[str, Any]:
        """Return the members that are set, as a line of a task file has them."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in members.items() if value is not None}
