"""The description of one task, in the form of DescribeTasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class LocalTask:
    """A task's description. Every change adds `version_step` to `version`; the JSON is encoded once per change.

    `on_change` is called after each change. Not modelled: the network attachment of awsvpc tasks, health checks,
    managed agents.
    """

    __slots__ = (
        *("_encoded", "_on_change", "_status_counts", "body", "client_token"),
        *("cluster", "sequence_number", "tags", "task_id", "version_step"),
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
        version_step: int = 1,
    ) -> None:
        self.body = body
        self.tags = tags
        self.cluster = cluster
        self.sequence_number = sequence_number
        self.client_token = client_token
        self.task_id: str = body["taskArn"].rpartition("/")[2]
        self._status_counts = status_counts
        self._on_change = on_change
        self.version_step = version_step
        self._encoded: msgspec.Raw | None = None
        status_counts[body["lastStatus"]] += 1

    @property
    def arn(self) -> str:
        """The ARN in the long form."""
        return str(self.body["taskArn"])

    @property
    def last_status(self) -> str:
        """PROVISIONING, PENDING, RUNNING, DEPROVISIONING or STOPPED."""
        return str(self.body["lastStatus"])

    def update(self, **members: Any) -> None:
        """Set members of the description. This makes one new version."""
        status = members.get("lastStatus")
        if status is not None:
            self._status_counts[self.last_status] -= 1
            self._status_counts[status] += 1
        self.body.update(members)
        self.body["version"] += self.version_step
        self._encoded = None
        self._on_change(self)

    def update_containers(self, main: Mapping[str, Any], sidecars: Mapping[str, Any]) -> None:
        """Set members of the containers, the first of which is the main one. `update` makes the version."""
        for index, container in enumerate(self.body["containers"]):
            container.update(sidecars if index else main)
        self._encoded = None

    def json(self) -> msgspec.Raw:
        """Return the encoded description without tags."""
        if self._encoded is None:
            self._encoded = msgspec.Raw(msgspec.json.encode(self.body))
        return self._encoded

    def json_with_tags(self) -> msgspec.Raw:
        """Return the encoded description with tags."""
        return msgspec.Raw(msgspec.json.encode({**self.body, "tags": self.tags}))
