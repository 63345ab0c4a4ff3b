"""Named points between two effects. A process may die at any of them, and no request is lost or run twice.

Tests kill real processes at each point (tests/crash/test_crash_points.py). In a process that is not armed,
`crash_point` does nothing.

Only tests arm a process, by the environment variable `ECS_QUEUE_TEST_CRASH_AT`: `POINT[*N][=pause]`, several separated
by commas. When the process reaches the point for the N-th time (the first, without N) it ends at once with `EXIT_CODE`
and without any clean-up; with `=pause` it stops itself until it gets SIGCONT.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from ecs_queue.errors import UsageError

ENVIRONMENT_VARIABLE = "ECS_QUEUE_TEST_CRASH_AT"
#: The status of a process that ended at a crash point. Nothing else exits with it.
EXIT_CODE = 86

#: The catalogue: point -> what is done already, and what is not.
POINTS: Mapping[str, str] = {
    # A client.
    "client.requests_put": "the ledger has the requests; no message is published",
    "client.requests_published": "the messages are published; the caller does not know that its requests are accepted",
    "client.request_put_again": "the ledger had lost the request and has it again; no message is published",
    "client.stop_marked": "the ledger has the stop request; neither the caller nor the owner knows it",
    "client.stop_result_published": "a stop has ended the request, its result is published; the caller does not know",
    "client.results_drained": "the result messages are off their queue; no result is returned to the caller",
    "client.result_yielding": "a result is about to be returned to the caller",
    "client.results_confirming": "the caller has the results; the ledger does not know it",
    "client.results_confirmed": "the ledger knows that the results are delivered; the call has not returned",
    # A message.
    "broker.taken": "messages are off their lists and recorded as unacknowledged; nothing is done for them",
    "broker.acking": "messages are handled; the broker does not know it",
    "broker.acked": "the broker knows that the messages are handled",
    "broker.requeueing": "a message is about to return to its queue",
    "broker.requeued": "the message is back in its queue; nothing else is done",
    "broker.closing": "a consumer is closing; its unacknowledged messages are not back in their queues",
    "consumer.received": "the message is received; nothing is done for it",
    "consumer.requeueing": "the message cannot be handled now; its return to the queue is not requested",
    "consumer.handled": "the message is handled; its acknowledgement is not requested",
    "consumer.undecodable": "an element that is not a message is off its list; it is not a dead letter yet",
    # A launch.
    "completion.dead_lettered": "the dead letter is stored; its message is not acknowledged",
    "launch.message_claimed": "the record is created and claimed; RunTask is not called",
    "launch.claimed": "a record without a message is claimed; RunTask is not called",
    "poison.delivery_begun": "the delivery of a request that may be poison is counted; the request is not read",
    "poison.delivery_ended": "the request is read and its delivery no longer counted; nothing else is done",
    "completion.claimed": "a record that this worker must not launch is claimed; nothing is done with it",
    "completion.deferred": "the ledger knows that a worker cannot read the record; nothing else is done",
    "launch.expired": "a request has expired in the ledger; its result is not published",
    "launch.reclaimed": "an ambiguous launch is reclaimed; no AWS call is made",
    "launch.calling": "RunTask is about to be called",
    "ecs.sending": "RunTask is signed and about to be sent",
    "launch.call_returned": "RunTask has returned; the ledger does not know the result",
    "launch.conflict_described": "the task named by a conflict is described; the ledger does not know it",
    "launch.launched": "the ledger has the ARN; the message is not acknowledged",
    "launch.unwanted": "the task is not of the record's present launch; its stop is not requested",
    "launch.no_effect": "the ledger knows that nothing was started; nothing else is done",
    "launch.ambiguous": "the ledger knows that the launch is ambiguous; nothing else is done",
    "launch.refused": "the ledger knows that ECS refused the call; if that ended the request, no result is published",
    "completion.refused": "the ledger knows that the request can never be launched; its result is not published",
    "launch.tasks_listed": "the tasks of an ambiguous launch are listed; the ledger does not know what was found",
    "launch.list_failed": "the ledger knows that ListTasks failed; nothing else is done",
    "launch.task_absent": "the ledger knows that no task is listed; if that ended the request, no result is published",
    "launch.reclaimed_unreadable": "an ambiguous launch with an unreadable target is reclaimed; nothing is reported",
    "launch.unknown": "the ledger knows that no worker can look for the task; if that ended it, no result is published",
    # A task that runs.
    "poller.leased": "the records are leased; their tasks are not described",
    "poller.described": "the tasks are described; the ledger does not know what was observed",
    "poller.rescheduled": "the polls of unchanged tasks are rescheduled; the changes of others are not written",
    "poller.updates_written": "the ledger has the updates of tasks; the results are not published",
    "reconciler.stop_marked": "a task over its time limit is marked to be stopped; StopTask is not requested",
    "reconciler.runner_tasks_written": "the ledger has the updates of runners' tasks; it does not have those of others",
    "event_listener.received": "events are received; none is decoded",
    "event_listener.launched": "the ledger has the ARN from an event; it does not have the event's other facts",
    "event_listener.updates_written": "the ledger has the facts of the events; results are not published",
    "event_listener.deleting": "the events are handled; they are still in their queue",
    "poller.unreadable_ended": "the ledger has the ends of unreadable stopped tasks; the results are not published",
    "task_stopper.calling": "StopTask is about to be called",
    "task_stopper.call_returned": "StopTask has returned; nothing else is done",
    # A runner.
    "run_settler.taken": "the hint that a runner has changed its run is taken; the request's record does not show it",
    "run_settler.settled": "the records are in line with their runs; results are not published",
    "silent_runners.closed": "silent idle runners are closed; their tasks are not stopped",
    "silent_runners.stopped": "StopTask of a silent runner has returned; nothing else is done",
    "ended_runners.described": "ECS has shown the tasks of runners that left; their ends are not journalled",
    "ended_runners.journalled": "the journal has the end of a runner; its run is not dropped yet",
    # Records that no message names.
    "sweeper.expired_leased": "expired records are leased; they are not ended",
    "sweeper.leased": "records are leased; they are not claimed",
    # A result.
    "result_publisher.publishing": "the ledger has the ends of requests; the results are not published",
    "result_publisher.published": "the results are published; nothing else is done",
    # A runner of a warm pool.
    "runner.turn_taken": "the ledger has confirmed that the runner has the command; it is not started",
    "runner.command_started": "the command runs",
    "runner.command_ended": "the command has ended, and what it left; the ledger does not know how",
    "runner.end_reported": "the ledger knows how the command ended; the runner does not know that it does",
    "runner.left": "the ledger has closed the run; the process has not ended",
    # A scheduler.
    "airflow.put": "the ledger has the tasks; no message is published",
    "airflow.published": "the messages are published; the executor does not know that its tasks are accepted",
    "airflow.accepted": "the executor counts a task as running; the scheduler has not collected its request id",
    "airflow.callback_adopted": "the ledger has a callback under its new owner; the executor does not know it",
    "airflow.drained": "the result messages are off their queue; the executor has not handled them",
    "airflow.reported": "the executor has reported a result; the scheduler has not collected it",
    "airflow.processed": "Airflow's database has the result; the ledger does not know that it is delivered",
    "airflow.confirmed": "the ledger knows that the results are delivered; the executor does not know it",
    "airflow.stopped": "the ledger has the stop requests; the executor does not know it",
    "airflow.adopted": "the ledger has the tasks under their new owner; the executor does not know it",
    "airflow.readopted": "the ledger had lost an adoption and has it again; the executor does not know it",
}

_ENTRY = re.compile(r"(?P<point>[a-z_.]+)(\*(?P<nth>[1-9][0-9]*))?(?P<pause>=pause)?")


class CrashPlan:
    """The points at which this process ends or pauses. Thread-safe.

    Args:
        text: The value of `ECS_QUEUE_TEST_CRASH_AT`.
        die: Ends the process with an exit code.
        pause: Stops the process.

    Raises:
        UsageError: `text` has a syntax error or names an unknown point.
    """

    def __init__(self, text: str, die: Callable[[int], object], pause: Callable[[], object]) -> None:
        self._die = die
        self._pause = pause
        self._lock = threading.Lock()
        self._reached: Counter[str] = Counter()
        self._actions: dict[str, tuple[int, Callable[[], object]]] = {}
        for entry in text.split(","):
            match = _ENTRY.fullmatch(entry.strip())
            if match is None or match["point"] not in POINTS:
                raise UsageError(
                    f"{ENVIRONMENT_VARIABLE}: expected POINT[*N][=pause] with a point of the catalogue, found {entry!r}"
                )
            action = self._pause if match["pause"] else self._end
            self._actions[match["point"]] = int(match["nth"] or 1), action

    def reach(self, point: str) -> None:
        """End or pause the process if this point is planned."""
        planned = self._actions.get(point)
        if planned is None:
            return
        nth, action = planned
        with self._lock:  # held while the process dies, so that no other thread passes the point
            self._reached[point] += 1
            if self._reached[point] == nth:
                action()

    def _end(self) -> None:
        self._die(EXIT_CODE)


def _do_nothing(point: str) -> None:
    """The process is not armed."""


def _load_crash_plan(text: str) -> Callable[[str], None]:
    if not text:
        return _do_nothing
    return CrashPlan(text, os._exit, _pause_thread).reach


def _pause_thread() -> None:
    """Signal this thread: another thread could take a signal to the process while this one goes on."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


#: `crash_point(point)` marks that the process is at this point. It does nothing unless a test has armed the process.
crash_point: Callable[[str], None] = _load_crash_plan(os.environ.get(ENVIRONMENT_VARIABLE, ""))
