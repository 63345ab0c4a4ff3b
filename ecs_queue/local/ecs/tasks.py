"""The record of one task, in the very form in which ECS describes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

STOPPED = "STOPPED"


class LocalTask:
    """A task's description: every change counts ``version`` up, and the JSON is made once a version.

    ``told`` is called after each change. Not modelled: the network attachment of awsvpc tasks, health checks, managed
    agents.
    """

    __slots__ = (
        "_encoded",
        "_on_change",
        "_status_counts",
        "body",
        "client_token",
        "cluster",
        "sequence_number",
        "tags",
        "task_id",
    )

    def __init__(
        self,
        body: dict[str, Any],
        tags: list[dict[str, str]],
        *,
        cluster: str,
        sequence_number: int,
        client_token: str | None,
        status_counts: Counter[str],
        on_change: Callable[[LocalTask], None] = lambda _: None,
    ) -> None:
        self.body = body
        self.tags = tags
        self.cluster = cluster
        self.sequence_number = sequence_number
        self.client_token = client_token
        self.task_id: str = body["taskArn"].rpartition("/")[2]
        self._status_counts = status_counts
        self._on_change = on_change
        self._encoded: msgspec.Raw | None = None
        status_counts[body["lastStatus"]] += 1

    @property
    def arn(self) -> str:
        """The long form."""
        arn: str = self.body["taskArn"]
        return arn

    @property
    def last_status(self) -> str:
        """PROVISIONING, PENDING, RUNNING, DEPROVISIONING or STOPPED."""
        status: str = self.body["lastStatus"]
        return status

    @property
    def is_stopped(self) -> bool:
        """It has reached its last status."""
        return self.last_status == STOPPED

    def update(self, **members: Any) -> None:
        """Set members of the description, as one new version."""
        status = members.get("lastStatus")
        if status is not None:
            self._status_counts[self.last_status] -= 1
            self._status_counts[status] += 1
        self.body.update(members)
        self.body["version"] += 1
        self._encoded = None
        self._on_change(self)

    def update_containers(self, main: Mapping[str, Any], sidecars: Mapping[str, Any]) -> None:
        """Set members of the containers; the first one is the main one. ``change`` makes the version."""
        for index, container in enumerate(self.body["containers"]):
            container.update(sidecars if index else main)
        self._encoded = None

    def json(self) -> msgspec.Raw:
        """Its description without tags, encoded."""
        if self._encoded is None:
            self._encoded = msgspec.Raw(msgspec.json.encode(self.body))
        return self._encoded

    def json_with_tags(self) -> msgspec.Raw:
        """Its description with tags, encoded."""
        return msgspec.Raw(msgspec.json.encode({**self.body, "tags": self.tags}))

    def repeated_call_json(self) -> msgspec.Raw:
        """RunTask's answer to a token used before: all of it, or of a stopped task ARN and statuses."""
        if not self.is_stopped:
            return self.json_with_tags()
        return stopped_task_json(self.arn)


def stopped_task_json(arn: str) -> msgspec.Raw:
    """RunTask's answer for a task of an earlier call that has stopped since."""
    body = {"taskArn": arn, "lastStatus": STOPPED, "desiredStatus": STOPPED}
    return msgspec.Raw(msgspec.json.encode(body))
