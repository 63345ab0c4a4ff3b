"""The reasons that the ledger writes into records: printf templates, which Python and Lua fill in alike."""

from __future__ import annotations

#: Arguments: who asked for the stop.
STOPPED = "stopped by %s"
#: Arguments: the time limit in seconds.
TIME_LIMIT_EXCEEDED = "stopped: it ran longer than its time limit of %.15g s"
NOT_STARTED_IN_TIME = "not started before its deadline (expires_in or launch_deadline)"
#: Follows NOT_STARTED_IN_TIME. Arguments: why the request was waiting.
WAITED_BECAUSE = "; it waited because: %s"
#: Follows NOT_STARTED_IN_TIME when no worker ever claimed the request. Arguments: its queue.
NEVER_CLAIMED = "; no worker received it: check that a worker takes from the queue %s"
#: Arguments: max_deliveries.
POISON = (
    "%d workers in a row died while they processed it, so it is not tried again (max_deliveries): "
    "read their logs, correct the request and submit it under another id"
)
#: Follows POISON when listing the tasks of the launch killed workers, too.
POISON_TASK_UNKNOWN = "; whether a task was started is not known: search for it by hand"
#: Arguments: what to do next.
ABSENCE_UNPROVABLE = "it is not known whether RunTask started a task, and after an hour ECS cannot show it: %s"
#: Arguments: the start timeout in seconds.
START_TIMED_OUT = "it had not started within its start_timeout of %.15g s"
#: Why a QUEUED request waits.
QUEUE_PAUSED = "its queue is paused"
NAMESPACE_FULL = "max_in_flight of the namespace is reached"
QUEUE_FULL = "max_in_flight of its queue is reached"
TOO_MANY_STARTING = "max_starting of its queue is reached"
#: Arguments: the concurrency key.
KEY_FULL = "max_per_key of its queue is reached for the key %s"
#: Arguments: the exit code.
COMMAND_EXITED = "the command exited with %d"
CANCELLED = "its runner cancelled it"
#: What follows says why the task stopped.
RUNNER_STOPPED = "the runner stopped before it reported the end of the command: "
NOT_FETCHED = "its runner did not take it in time"
POOL_DRAINED = "its pool was drained before its runner had taken it"
RUN_LOST = "the ledger has lost its run, and it is not known whether a runner has started it: read the runner's log"
#: What to do about a launch of which nothing can be proved any more.
MANUAL_SEARCH_ADVICE = "search for it by hand"

#: Every template by its name in lower case, for the Lua script.
REASON_TEMPLATES = {name.lower(): template for name, template in list(globals().items()) if name.isupper()}
