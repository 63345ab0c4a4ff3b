"""How each crash point is reached. test_catalogue.py fails for a point without a scenario."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet

from ecs_queue.local.ecs import FaultOptions, LocalEcsOptions
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.record import build_client_token, build_started_by
from ecs_queue.protocol.states import State
from ecs_queue.server_keys import ledger_prefix, queue_prefix
from tests.crash.harness import LEASE_SECONDS, SETTLE_SECONDS, TIMEOUT_SECONDS, CrashHarness, TaskLine
from tests.invariants import list_all_tasks, make_ecs_client
from tests.wait import wait_until

#: id -> final state and attempts.
FinalStates = Mapping[str, tuple[str, int]]

OK_TASK: TaskLine = {"id": "ok", "command": ["true"]}
FAILING_TASK: TaskLine = {"id": "bad", "command": ["exit", "3"]}
BOTH_ENDED: FinalStates = {"ok": ("SUCCESS", 1), "bad": ("FAILED", 1)}
#: A seed with which the first call meets the fault and a later one does not.
_FIRST_CALL = 1


def _none() -> LocalEcsOptions:
    return LocalEcsOptions()


@dataclass(frozen=True)
class Scenario:
    """`crash(harness, point)` returns when a process has died at the point; `finish` must return `expected`."""

    crash: Callable[[CrashHarness, str], None]
    expected: FinalStates
    ecs: LocalEcsOptions = field(default_factory=_none)
    finish: Callable[[CrashHarness], FinalStates] = CrashHarness.finish
    settings: Mapping[str, str] = field(default_factory=dict)
    with_events: bool = False  # the workers receive task events, too


def ecs_with_faults(**faults: float) -> LocalEcsOptions:
    """An ECS whose first RunTask fails."""
    chances: dict[str, Any] = dict(faults)
    return LocalEcsOptions(faults=FaultOptions(seed=_FIRST_CALL, operations=("RunTask",), **chances))


def worker_with_two_requests(harness: CrashHarness, point: str) -> None:
    """A worker dies with two requests."""
    harness.submit(OK_TASK, FAILING_TASK)
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_silent_runner(harness: CrashHarness, point: str) -> None:
    """An idle runner is frozen until its task is stopped."""
    harness.submit(OK_TASK)
    worker = harness.start_worker()
    harness.wait_for_state("ok", State.SUCCESS)
    harness.kill(worker)
    (run,) = harness.queue.ledger.list_runs()
    wait_until(lambda: harness.queue.ledger.list_runs()[0].phase == "idle", "the runner is idle")
    # As a runner that has not spoken since: a minute is the least that can be configured.
    key = f"{ledger_prefix(harness.namespace)}run:{run.name}"
    harness.redis.hset(key, mapping={"boot": "frozen", "seen_at": "1.000"})
    harness.redis.delete(f"{ledger_prefix(harness.namespace)}bucket:silent_runners")  # half a minute later
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_left_runner(harness: CrashHarness, point: str) -> None:
    """An idle runner has left while no worker lived."""
    harness.submit(OK_TASK)
    worker = harness.start_worker()
    harness.wait_for_state("ok", State.SUCCESS)
    harness.kill(worker)
    wait_until(lambda: harness.queue.ledger.list_runs()[0].closed == "left", "the runner has left")
    wait_until(
        lambda: {task["lastStatus"] for task in list_all_tasks(harness.endpoint_url)} == {"STOPPED"},
        "its task has stopped",
    )
    harness.redis.delete(f"{ledger_prefix(harness.namespace)}bucket:ended_runners")  # half a minute later
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_long_task(harness: CrashHarness, point: str) -> None:
    """The task runs long enough to be leased, and polled without a change."""
    harness.submit({"id": "ok", "command": ["sleep", "4.5"]})
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_without_messages(harness: CrashHarness, point: str) -> None:
    """The messages were lost or never published."""
    harness.submit_without_messages(OK_TASK, FAILING_TASK)
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_without_encryption_key(harness: CrashHarness, point: str) -> None:
    """A worker finds requests that only others can read."""
    harness.submit_without_messages(OK_TASK, FAILING_TASK)
    harness.wait_for_crash(harness.start_worker(point, {"ENCRYPTION_KEYS": ""}), point)


def worker_with_expired_request(harness: CrashHarness, point: str) -> None:
    harness.submit_without_messages({**OK_TASK, "expires_in": 0.2})
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_that_reclaims(harness: CrashHarness, point: str) -> None:
    """One worker dies after RunTask returned, the next one when it reclaims the launch."""
    harness.submit(OK_TASK)
    harness.wait_for_crash(harness.start_worker("launch.call_returned"), "launch.call_returned")
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_that_adopts_from_event(harness: CrashHarness, point: str) -> None:
    """A worker without events dies after RunTask returned, the next one when it gets an event of the task."""
    harness.submit(OK_TASK)
    harness.wait_for_crash(
        harness.start_worker("launch.call_returned", {"EVENT_QUEUE_URL": ""}), "launch.call_returned"
    )
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_task_over_time_limit(harness: CrashHarness, point: str) -> None:
    harness.submit({"id": "long", "command": ["sleep", "60"], "time_limit": 0.5})
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_undecodable_element(harness: CrashHarness, point: str) -> None:
    """The element is no request: it may be lost and must not harm requests."""
    harness.redis.lpush(f"{queue_prefix(harness.namespace)}requests.default", b"no message at all")
    harness.wait_for_crash(harness.start_worker(point), point)
    harness.submit(OK_TASK, FAILING_TASK)


def worker_with_dead_letter(harness: CrashHarness, point: str) -> None:
    """A message without an envelope is stored once or twice."""
    harness.publish(b"not an envelope")
    harness.wait_for_crash(harness.start_worker(point), point)
    harness.submit(OK_TASK, FAILING_TASK)
    assert {letter.body for letter in harness.queue.ledger.list_dead_letters(10)} == {b"not an envelope"}


def worker_with_invalid_arguments(harness: CrashHarness, point: str) -> None:
    """A producer without checks submits what RunTask never accepts."""
    now = harness.queue.ledger.now()
    request = new_request(
        id="ok",
        command=["true"],
        executor_config={"overrides": "none"},
        now=now,
        accept_seconds=600,
        owner="here",
    )
    body = envelope.encode(request)
    harness.publish(body)
    harness.expect_result("ok", envelope.compute_nonce(harness.namespace, body))
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_token_conflict(harness: CrashHarness, point: str) -> None:
    """ECS has a task for this launch with other arguments; its startedBy shows that it is ours."""
    prepared = harness.queue.prepare(OK_TASK)
    nonce = prepared.submission.nonce
    make_ecs_client(harness.endpoint_url).run_task(
        cluster="local",
        taskDefinition="local",
        clientToken=build_client_token("ok", nonce, 1),
        startedBy=build_started_by(harness.namespace, "ok", nonce, 1),
    )
    harness.handles += harness.queue.send([prepared])
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_unwanted_task(harness: CrashHarness, point: str) -> None:
    """A worker pauses after RunTask returned until others have made the next launch."""
    harness.submit({"id": "ok", "command": ["sleep", "no number"]})
    sleeper = harness.start_worker(f"launch.call_returned=pause,{point}")
    harness.wait_for_pause(sleeper)
    harness.start_worker()
    wait_until(lambda: harness.record("ok").launch > 1, "another worker continues", TIMEOUT_SECONDS)
    sleeper.send_signal(signal.SIGCONT)
    harness.wait_for_crash(sleeper, point)


def worker_with_stopped_ambiguous_launch(harness: CrashHarness, point: str) -> None:
    """A request is stopped while its call is ambiguous: workers list its tasks until an empty list is proof."""
    harness.submit(OK_TASK)
    harness.wait_for_crash(harness.start_worker("launch.calling"), "launch.calling")
    assert harness.queue.stop("ok") is State.LAUNCHING
    proof_at = harness.record("ok").last_claim_at + LEASE_SECONDS + SETTLE_SECONDS
    if point == "launch.task_absent":  # otherwise the first list comes too early to end it
        wait_until(lambda: harness.queue.ledger.now() > proof_at, "an empty list is proof", TIMEOUT_SECONDS)
    harness.wait_for_crash(harness.start_worker(point), point)


def _write_newer_target(harness: CrashHarness, **changes: str) -> None:
    """Store a target as a newer version would."""
    fields: dict[Any, Any] = {"target": '{"galaxy": "far away"}', **changes}
    harness.redis.hset(f"{ledger_prefix(harness.namespace)}r:ok", mapping=fields)


def worker_with_ambiguous_launch_of_unknown_target(harness: CrashHarness, point: str) -> None:
    """From an hour after the call, an empty list is no proof."""
    harness.submit(OK_TASK)
    harness.wait_for_crash(harness.start_worker("launch.calling"), "launch.calling")
    _write_newer_target(harness, first_called_at=str(harness.record("ok").first_called_at - 3700))
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_stopped_task_of_unknown_target(harness: CrashHarness, point: str) -> None:
    """The task ends by itself, and no worker can read where it ran."""
    harness.submit({"id": "ok", "command": ["sleep", "0.5"]})
    harness.wait_for_crash(harness.start_worker("launch.launched"), "launch.launched")
    _write_newer_target(harness)
    assert harness.queue.stop("ok") is State.LAUNCHED
    wait_until(
        lambda: [task["lastStatus"] for task in list_all_tasks(harness.endpoint_url)] == ["STOPPED"],
        "it has ended",
        TIMEOUT_SECONDS,
    )
    harness.wait_for_crash(harness.start_worker(point), point)


def worker_with_full_server(harness: CrashHarness, point: str) -> None:
    """The server is full when a worker has taken a message, so that its record cannot be claimed yet."""
    harness.submit(OK_TASK)
    worker = harness.start_worker(f"consumer.received=pause,{point}")
    harness.wait_for_pause(worker)
    harness.redis.config_set("maxmemory", 1)
    try:
        worker.send_signal(signal.SIGCONT)
        harness.wait_for_crash(worker, point)
    finally:
        harness.redis.config_set("maxmemory", 0)


#: One RunTask in 50 s.
_LOW_RATE = {"RUN_TASK_RATE": "0.02", "RUN_TASK_BURST": "1"}


def worker_terminated_while_rate_limited(harness: CrashHarness, point: str) -> None:
    """SIGTERM while a message waits for the rate limit."""
    harness.submit(OK_TASK)
    worker = harness.start_worker(point, _LOW_RATE)
    harness.wait_for_state("ok", State.LAUNCHED, State.SUCCESS)
    harness.submit(FAILING_TASK)
    harness.wait_for_empty_queue()
    harness.wait_for_waiting_launch()
    worker.send_signal(signal.SIGTERM)
    harness.wait_for_crash(worker, point)


# Clients.


def finish_with_client(harness: CrashHarness) -> FinalStates:
    """Restart the client with the same requests. Each of its runs gets every result at most once."""
    harness.start_worker()
    again = harness.start_client([OK_TASK, FAILING_TASK])
    assert again.wait(60) == 0
    runs = harness.client_runs()
    for run in runs:
        assert len({line["id"] for line in run}) == len(run)
    outcomes = {line["id"]: (line["state"], line["attempts"]) for run in runs for line in run}
    assert all(outcomes[line["id"]] == (line["state"], line["attempts"]) for run in runs for line in run)
    assert {line["id"] for line in runs[-1]} == {"ok", "bad"}
    harness.check_invariants(outcomes)
    return outcomes


def client_that_submits(harness: CrashHarness, point: str) -> None:
    harness.wait_for_crash(harness.start_client([OK_TASK, FAILING_TASK], armed=point), point)


def client_that_waits(harness: CrashHarness, point: str) -> None:
    harness.start_worker()
    harness.wait_for_crash(harness.start_client([OK_TASK, FAILING_TASK], armed=point), point)


def client_that_stops(harness: CrashHarness, point: str) -> None:
    harness.wait_for_crash(harness.start_client([OK_TASK, FAILING_TASK], "--stop", armed=point), point)


def client_whose_requests_were_lost(harness: CrashHarness, point: str) -> None:
    client = harness.start_client([OK_TASK, FAILING_TASK], armed=point)
    wait_until(lambda: all(harness.queue.ledger.get(["ok", "bad"])), "they are submitted", TIMEOUT_SECONDS)
    harness.delete_all_keys()
    harness.wait_for_crash(client, point)


_EVERY_REQUEST_POINTS = (
    "broker.taken",
    "broker.acking",
    "broker.acked",
    "consumer.received",
    "consumer.handled",
    "launch.message_claimed",
    "launch.calling",
    "ecs.sending",
    "launch.call_returned",
    "launch.launched",
    "poller.described",
    "poller.updates_written",
    "result_publisher.publishing",
    "result_publisher.published",
)
_ONE_ENDED: FinalStates = {"ok": ("SUCCESS", 1)}
_REVOKED: FinalStates = {"ok": ("REVOKED", 0)}
_UNREADABLE_REQUEST = Scenario(
    worker_without_encryption_key, BOTH_ENDED, settings={"ENCRYPTION_KEYS": Fernet.generate_key().decode()}
)
_UNKNOWN_TARGET = Scenario(worker_with_ambiguous_launch_of_unknown_target, {"ok": ("UNKNOWN", 1)})
_WITHOUT_MESSAGES = Scenario(worker_without_messages, BOTH_ENDED)
_EXPIRED = Scenario(worker_with_expired_request, {"ok": ("EXPIRED", 0)})
_OVER_TIME_LIMIT = Scenario(worker_with_task_over_time_limit, {"long": ("FAILED", 1)})
_STOPPED_AMBIGUOUS = Scenario(worker_with_stopped_ambiguous_launch, _REVOKED)
_SUBMITTING_CLIENT = Scenario(client_that_submits, BOTH_ENDED, finish=finish_with_client)
_WAITING_CLIENT = Scenario(client_that_waits, BOTH_ENDED, finish=finish_with_client)
_STOPPING_CLIENT = Scenario(client_that_stops, {"ok": ("REVOKED", 0), "bad": ("REVOKED", 0)}, finish=finish_with_client)

#: The first polls fail, so that events come before them even on a busy machine: four calls meet the fault of this seed,
#: the next ten do not.
_ECS_WITH_DESCRIBE_FAULTS = LocalEcsOptions(
    faults=FaultOptions(server_error=0.5, seed=4160, operations=("DescribeTasks",))
)
_WITH_EVENTS = Scenario(worker_with_two_requests, BOTH_ENDED, _ECS_WITH_DESCRIBE_FAULTS, with_events=True)

_WARM = {"AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "1"}

SCENARIOS: Mapping[str, Scenario] = {
    "run_settler.taken": Scenario(worker_with_two_requests, BOTH_ENDED, settings=_WARM),
    "run_settler.settled": Scenario(worker_with_two_requests, BOTH_ENDED, settings=_WARM),
    "silent_runners.closed": Scenario(worker_with_silent_runner, _ONE_ENDED, settings=_WARM),
    "silent_runners.stopped": Scenario(worker_with_silent_runner, _ONE_ENDED, settings=_WARM),
    "ended_runners.described": Scenario(worker_with_left_runner, _ONE_ENDED, settings=_WARM),
    "ended_runners.journalled": Scenario(worker_with_left_runner, _ONE_ENDED, settings=_WARM),
    "reconciler.runner_tasks_written": Scenario(worker_with_two_requests, BOTH_ENDED),
    **dict.fromkeys(
        ("event_listener.received", "event_listener.updates_written", "event_listener.deleting"), _WITH_EVENTS
    ),
    # Long enough for the second worker to get the event before the lease is over.
    "event_listener.launched": Scenario(
        worker_that_adopts_from_event, _ONE_ENDED, settings={"LEASE_SECONDS": "20"}, with_events=True
    ),
    **dict.fromkeys(_EVERY_REQUEST_POINTS, Scenario(worker_with_two_requests, BOTH_ENDED)),
    "client.requests_put": _SUBMITTING_CLIENT,
    "client.requests_published": _SUBMITTING_CLIENT,
    "client.request_put_again": Scenario(client_whose_requests_were_lost, BOTH_ENDED, finish=finish_with_client),
    "client.stop_marked": _STOPPING_CLIENT,
    "client.stop_result_published": _STOPPING_CLIENT,
    "client.results_drained": _WAITING_CLIENT,
    "client.result_yielding": _WAITING_CLIENT,
    "client.results_confirming": _WAITING_CLIENT,
    "client.results_confirmed": _WAITING_CLIENT,
    "broker.closing": Scenario(worker_terminated_while_rate_limited, BOTH_ENDED),
    "broker.requeueing": Scenario(worker_terminated_while_rate_limited, BOTH_ENDED),
    "broker.requeued": Scenario(worker_terminated_while_rate_limited, BOTH_ENDED),
    "consumer.requeueing": Scenario(worker_with_full_server, _ONE_ENDED),
    "consumer.undecodable": Scenario(worker_with_undecodable_element, BOTH_ENDED),
    "completion.dead_lettered": Scenario(worker_with_dead_letter, BOTH_ENDED),
    "launch.claimed": _WITHOUT_MESSAGES,
    "poison.delivery_begun": _WITHOUT_MESSAGES,
    "poison.delivery_ended": _WITHOUT_MESSAGES,
    "completion.claimed": _UNREADABLE_REQUEST,
    "completion.deferred": _UNREADABLE_REQUEST,
    "launch.expired": _EXPIRED,
    "launch.reclaimed": Scenario(worker_that_reclaims, _ONE_ENDED),
    "launch.conflict_described": Scenario(worker_with_token_conflict, _ONE_ENDED),
    "launch.unwanted": Scenario(worker_with_unwanted_task, {"ok": ("REMOVED", 3)}),
    "launch.no_effect": Scenario(worker_with_two_requests, BOTH_ENDED, ecs_with_faults(throttle=0.5)),
    "launch.ambiguous": Scenario(worker_with_two_requests, BOTH_ENDED, ecs_with_faults(server_error=0.5)),
    "launch.refused": Scenario(worker_with_two_requests, BOTH_ENDED, ecs_with_faults(capacity=0.5)),
    "completion.refused": Scenario(worker_with_invalid_arguments, {"ok": ("FAILED", 1)}),
    "launch.tasks_listed": _STOPPED_AMBIGUOUS,
    "launch.list_failed": Scenario(
        worker_with_stopped_ambiguous_launch,
        _REVOKED,
        LocalEcsOptions(faults=FaultOptions(server_error=0.5, seed=_FIRST_CALL, operations=("ListTasks",))),
    ),
    "launch.task_absent": _STOPPED_AMBIGUOUS,
    "launch.reclaimed_unreadable": _UNKNOWN_TARGET,
    "launch.unknown": _UNKNOWN_TARGET,
    "poller.leased": Scenario(worker_with_long_task, _ONE_ENDED),
    "poller.rescheduled": Scenario(worker_with_long_task, _ONE_ENDED),
    "reconciler.stop_marked": _OVER_TIME_LIMIT,
    "poller.unreadable_ended": Scenario(worker_with_stopped_task_of_unknown_target, {"ok": ("UNKNOWN", 1)}),
    "task_stopper.calling": _OVER_TIME_LIMIT,
    "task_stopper.call_returned": _OVER_TIME_LIMIT,
    "sweeper.expired_leased": _EXPIRED,
    "sweeper.leased": _WITHOUT_MESSAGES,
}
