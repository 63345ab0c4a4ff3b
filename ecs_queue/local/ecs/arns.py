"""ARNs and identifiers of one account and Region. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecs_queue.local.ecs.aws_json import cluster_not_found, invalid_parameter

_TASK_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID_LENGTHS = "taskId length should be one of [32,36]"


@dataclass(frozen=True, slots=True)
class ArnCodec:
    """Builds and parses ARNs in the long form."""

    region: str
    account: str

    def cluster_arn(self, cluster: str) -> str:
        """Return `arn:aws:ecs:REGION:ACCOUNT:cluster/NAME`."""
        return self._arn("cluster", cluster)

    def task_arn(self, cluster: str, task_id: str) -> str:
        """Return `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`."""
        return self._arn("task", f"{cluster}/{task_id}")

    def container_arn(self, cluster: str, task_id: str, container_id: str) -> str:
        """Return `arn:aws:ecs:REGION:ACCOUNT:container/CLUSTER/TASK/ID`."""
        return self._arn("container", f"{cluster}/{task_id}/{container_id}")

    def task_definition_arn(self, family: str, revision: int) -> str:
        """Return `arn:aws:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION`."""
        return self._arn("task-definition", f"{family}:{revision}")

    def cluster_name(self, given: str | None) -> str:
        """Return the name in a `cluster` parameter: a name, an ARN, or `default` when it is missing."""
        name = "default" if given is None else given.removeprefix(self.cluster_arn(""))
        if name.startswith("arn:"):
            raise cluster_not_found()
        return name

    def task_id(self, given: str) -> str:
        """Return the id in a `task` parameter: an id, or an ARN in the long or the old short form."""
        if given.startswith("arn:"):
            given = given.rpartition("/")[2]
        if not _TASK_ID.fullmatch(given):
            raise invalid_parameter(f"{_ID_LENGTHS}: {given!r}")
        return given.replace("-", "")

    def family_and_revision(self, given: str) -> tuple[str, int | None]:
        """Return `("name", 3)` for `name:3` or an ARN; the revision None means the newest."""
        if given.startswith("arn:"):
            given = given.partition(":task-definition/")[2]
        family, _, revision = given.partition(":")
        if revision and not (revision.isascii() and revision.isdigit()):
            raise invalid_parameter(f"Invalid revision number. Number: {revision}")
        return family, int(revision) if revision else None

    def _arn(self, kind: str, rest: str) -> str:
        return f"arn:aws:ecs:{self.region}:{self.account}:{kind}/{rest}"
