"""Named points between two effects, where a process may die at any time and nothing is lost or doubled.

Tests kill real processes at each of them (tests/crash). In a process that is not armed, `reach` does nothing.

A process is armed by the environment variable `ECS_QUEUE_TEST_CRASH_AT`, which only tests set:
`POINT[*N][=pause]`, several separated by commas. At the N-th reach of the point (1st without N) the process ends at
once, without a word to anybody, with `EXIT_CODE`; with `=pause` it stops itself until somebody sends SIGCONT.
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
#: How a process ends at its point: no exit code of anything else here.
EXIT_CODE = 86

#: THE catalogue: point -> what is done already, and what is not.
POINTS: Mapping[str, str] = {
    # A client.
    "client.requests_put": "the ledger has the requests, no message speaks of them",
    "client.requests_published": "the messages are out, the caller does not know that its requests are accepted",
    "client.request_put_again": "the ledger had lost the request and has it again, no message speaks of it",
    "client.stop_marked": "the ledger knows of the stop, the caller and the owner do not",
    "client.stop_result_published": "the owner of a request that a stop has ended is told, the caller does not know",
    "client.results_drained": "the results are off their queue, nobody has been given them",
    "client.result_yielding": "the caller is about to be given a result",
    "client.results_confirming": "the caller has had the results, the ledger does not know it",
    "client.results_confirmed": "the ledger knows that the results are delivered, the caller has not come back",
    # A message.
    "broker.popped": "the message is off its list and nobody else knows that it was taken",
    "broker.fetched": "messages are off their lists and among the unacknowledged, nothing is done for them",
    "broker.acking": "messages are dealt with, the broker does not know it",
    "broker.acked": "the broker knows it",
    "broker.requeueing": "a message is to be given back, it is not yet",
    "broker.requeued": "the message is given back, nothing else is done",
    "broker.closing": "a consumer ends, what it has in hand is not given back",
    "consumer.received": "the message is taken, nothing is done for it",
    "consumer.requeueing": "the message could not be dealt with now, nobody has asked for it to be given back",
    "consumer.handled": "all is done for the message, its acknowledgement is not asked for",
    "consumer.undecodable": "an element that is no message is off its list and not among the dead letters",
    # A launch.
    "completion.dead_lettered": "the dead letter is kept, its message is not acknowledged",
    "launch.admitted": "the record is made and claimed, RunTask is not called",
    "launch.claimed": "a record that no message spoke of is claimed, RunTask is not called",
    "poison.delivery_begun": "a request that may break its worker is counted, it is not read",
    "poison.delivery_ended": "it is read and not counted any more, nothing else is done",
    "completion.claimed": "a record that this worker must not launch is claimed, nothing is done with it",
    "completion.deferred": "the ledger knows that a worker cannot read a record, nothing else is done",
    "launch.expired": "a request has expired in the ledger, its result is not announced",
    "launch.reclaimed": "a launch in doubt is taken over, nothing is called",
    "launch.calling": "RunTask is about to be called",
    "ecs.sending": "RunTask is signed and about to be sent",
    "launch.answered": "RunTask is answered, the ledger does not know it",
    "launch.conflict_described": "the task that a conflict names is described, the ledger does not know it",
    "launch.launched": "the ledger has the ARN, the message is not acknowledged",
    "launch.unwanted": "the task is of no use to its record, it is not ordered to stop",
    "launch.no_effect": "the ledger knows that nothing was started, nothing else is done",
    "launch.ambiguous": "the ledger knows that the launch is in doubt, nothing else is done",
    "launch.refused": "the ledger knows ECS's no, an end it means is not announced",
    "completion.refused": "the ledger knows that the request can never be sent, its end is not announced",
    "launch.tasks_listed": "the tasks of a launch in doubt are listed, the ledger does not know what was found",
    "launch.list_failed": "they could not be listed, the ledger knows it",
    "launch.task_absent": "the ledger knows that none was listed, an end it means is not announced",
    "launch.reclaimed_unreadable": "a launch in doubt whose target cannot be read is taken over, nothing is reported",
    "launch.unknown": "the ledger knows that nobody can look for its task, an end it means is not announced",
    # A task that runs.
    "poller.leased": "the records are leased, nobody has looked at their tasks",
    "poller.described": "the tasks are described, the ledger does not know what was seen",
    "poller.rescheduled": "what has no news rests, the news of the others are not written",
    "poller.outcomes_written": "the ledger has the ends of tasks, they are not announced",
    "reconciler.stop_marked": "a task over its time is marked to be stopped, no order is given",
    "event_listener.received": "events are taken from their queue, nobody knows what they say",
    "event_listener.launched": "the ledger has the ARN from an event, it does not know what else the event says",
    "event_listener.outcomes_written": "the ledger has what the events say, ends are not announced",
    "event_listener.deleting": "all is done for the events, they are still in their queue",
    "poller.unreadable_ended": "the ledger has the ends of stopped tasks that cannot be followed here, not announced",
    "task_stopper.calling": "StopTask is about to be called",
    "task_stopper.answered": "StopTask is answered, nothing else is done",
    # What no message speaks of.
    "sweeper.expired_leased": "expired records are leased, they are not ended",
    "sweeper.leased": "records are leased, they are not claimed",
    # A result.
    "result_publisher.publishing": "the ledger has the results, no message speaks of them",
    "result_publisher.published": "the messages are out, nothing else is done",
    # A scheduler.
    "airflow.put": "the ledger has the tasks, no message speaks of them",
    "airflow.published": "the messages are out, the executor does not know that its tasks are accepted",
    "airflow.accepted": "a task counts as running, the scheduler has not collected the id that it got here",
    "airflow.callback_adopted": "the ledger has a callback under its new owner, the executor does not know it",
    "airflow.drained": "the results are off their queue, the executor has not looked at them",
    "airflow.reported": "the scheduler can collect a result, it has not",
    "airflow.processed": "the database shows that a result is taken in, the ledger does not know it",
    "airflow.confirmed": "the ledger knows that the results are delivered, the executor does not",
    "airflow.stopped": "the ledger knows of the stops, the executor does not",
    "airflow.adopted": "the ledger has the tasks under their new owner, the executor does not know it",
    "airflow.readopted": "the ledger had lost an adoption and has it again, the executor does not know it",
}

_ENTRY = re.compile(r"(?P<point>[a-z_.]+)(\*(?P<nth>[1-9][0-9]*))?(?P<pause>=pause)?")


class CrashPlan:
    """The points at which this process is to end, or to pause. Thread-safe.

    `die(code)` and `pause()` are what happens there. UsageError: the text names no point, or is none.
    """

    def __init__(self, text: str, die: Callable[[int], object], pause: Callable[[], object]) -> None:
        self._die = die
        self._pause = pause
        self._lock = threading.Lock()
        self._reached: Counter[str] = Counter()
        self._actions: dict[str, tuple[int, Callable[[], object]]] = {}
        for word in text.split(","):
            found = _ENTRY.fullmatch(word.strip())
            if found is None or found["point"] not in POINTS:
                raise UsageError(
                    f"{ENVIRONMENT_VARIABLE}: expected POINT[*N][=pause] with a point of the catalogue, found {word!r}"
                )
            act = self._pause if found["pause"] else self._end
            self._actions[found["point"]] = int(found["nth"] or 1), act

    def reach(self, point: str) -> None:
        """The process is at this point."""
        planned = self._actions.get(point)
        if planned is None:
            return
        nth, act = planned
        with self._lock:  # held while it dies, so that no other thread goes on past the point
            self._reached[point] += 1
            if self._reached[point] == nth:
                act()

    def _end(self) -> None:
        self._die(EXIT_CODE)


def _do_nothing(point: str) -> None:
    """Not armed."""


def _load_crash_plan(text: str) -> Callable[[str], None]:
    if not text:
        return _do_nothing
    return CrashPlan(text, os._exit, _pause_thread).reach


def _pause_thread() -> None:
    """Sent to this thread: sent to the process, another one may take it, and this one would go on meanwhile."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


#: `reach(point)`: the process is at this point. Nothing happens, but for a test that has armed it.
crash_point: Callable[[str], None] = _load_crash_plan(os.environ.get(ENVIRONMENT_VARIABLE, ""))
