"""What a launcher passes to the runner that it starts, in the environment of the container. No secret is among it."""

from __future__ import annotations

import msgspec

#: The container's command.
RUNNER_COMMAND = ("ecs-queue", "runner")
#: JSON: `RunnerOptions`.
OPTIONS_VARIABLE = "ECS_QUEUE_RUNNER"
#: The server's URL, as `ledger_url`; and the keys of `runner-key`, separated by commas. Secrets of the task definition.
URL_VARIABLE, KEY_VARIABLE = "ECS_QUEUE_RUNNER_URL", "ECS_QUEUE_RUNNER_KEY"
#: The same of a container that runs a function call: what the caller hands to it, its server, and the key of its queue.
CALL_VARIABLE, CALL_URL_VARIABLE, CALL_KEY_VARIABLE = "ECS_QUEUE_CALL", "ECS_QUEUE_CALL_URL", "ECS_QUEUE_CALL_KEY"


class RunnerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which run the runner has, and the numbers of its queue. Durations are seconds.

    Attributes:
        run: The name of its run.
        namespace, queue: Which ledger, and whose key.
        durability: What a barrier waits for: "server", "aof" or "replica".
        warm_seconds: How long it waits for another command.
        warm_max_age: When it takes no further command, counted from its start; 0: never.
        runner_ttl: Launchers take it for silent after this time without a call.
        runner_lost_seconds: It exits after this time without the server.
        stop_timeout: Between SIGTERM and SIGKILL of a command.
        preload: Modules that it imports once; `python -m` of one of them runs in a fork.
    """

    run: str
    namespace: str
    queue: str
    durability: str = "server"
    warm_seconds: float = 0.0
    warm_max_age: float = 0.0
    runner_ttl: float = 15.0
    runner_lost_seconds: float = 1800.0
    stop_timeout: float = 30.0
    preload: list[str] = []
