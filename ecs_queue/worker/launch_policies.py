"""The launch policies of one launch: those of its queue's profile, and those that its request sets in their place."""

from __future__ import annotations

import msgspec

from ecs_queue.config import Profile
from ecs_queue.messages.request import TaskRequest
from ecs_queue.messages.retry_rules import parse_retry_rules
from ecs_queue.protocol.retry_rules import encode_retry_rules
from ecs_queue.runtask.overrides import check_policies_allowed


class LaunchPolicies(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim freezes beside the arguments of RunTask (docs/policies.md).

    Attributes:
        start_timeout: Seconds from RunTask to RUNNING; 0: no limit.
        retry_rules: As JSON; "": the relaunch policy alone.
        max_starting: The queue's limit of tasks between launch and RUNNING; 0: none.
        concurrency_key: Of the request; "": none.
        max_per_key: The queue's limit of requests in flight with the same key; 0: none.
    """

    start_timeout: float = 0.0
    retry_rules: str = ""
    max_starting: int = 0
    concurrency_key: str = ""
    max_per_key: int = 0


NO_POLICIES = LaunchPolicies()


def choose_policies(profile: Profile, request: TaskRequest) -> LaunchPolicies:
    """Return the policies of a request's next launch.

    Raises:
        InvalidRequest: It sets one that its queue does not allow.
    """
    check_policies_allowed(request.given_policies(), profile.allowed_overrides, profile.queue)
    own_rules = request.retry_rules
    rules = profile.retry_rules if own_rules is None else parse_retry_rules(own_rules)
    return LaunchPolicies(
        start_timeout=request.start_timeout or profile.start_timeout,
        retry_rules=encode_retry_rules(rules),
        max_starting=profile.max_starting,
        concurrency_key=request.concurrency_key or "",
        max_per_key=profile.max_per_key if request.concurrency_key else 0,
    )
