"""How each crash point is reached. A point of the catalogue without a scenario here fails the suite."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet

from ecs_queue.core import envelope
from ecs_queue.core.record import client_token_of, startedby_of
from ecs_queue.core.states import State
from ecs_queue.local.ecs import Faults, LocalEcsOptions
from tests.crash.bench import LEASE, PATIENCE, SETTLE, Bench, Line
from tests.evidence import all_tasks, ecs_client
from tests.system.processes import wait_for

#: id -> its state and attempts in the end.
Ends = Mapping[str, tuple[str, int]]

OK: Line = {"id": "ok", "command": ["true"]}
BAD: Line = {"id": "bad", "command": ["exit", "3"]}
BOTH: Ends = {"ok": ("SUCCESS", 1), "bad": ("FAILED", 1)}
#: Seeds with which the first call meets the fault, and a later one does not.
_FIRST_CALL = 1


def _none() -> LocalEcsOptions:
    return LocalEcsOptions()


@dataclass(frozen=True)
class Scenario:
    """`play(bench, point)` comes back when a process has died at the point; `ends`: what is true in the end."""

    play: Callable[[Bench, str], None]
    ends: Ends
    ecs: LocalEcsOptions = field(default_factory=_none)
    finish: Callable[[Bench], Ends] = Bench.finish
    settings: Mapping[str, str] = field(default_factory=dict)
    by_events: bool = False  # the workers read ECS's events, too


def faulty(**faults: float) -> LocalEcsOptions:
    """An ECS whose first RunTask goes wrong."""
    return LocalEcsOptions(faults=Faults(seed=_FIRST_CALL, operations=("RunTask",), **faults))


def on_its_way(bench: Bench, point: str) -> None:
    """Two requests, a worker that dies with them."""
    bench.submit(OK, BAD)
    bench.dies(bench.worker(point), point)


def running_long(bench: Bench, point: str) -> None:
    """The task runs long enough to be looked at without news."""
    bench.submit({"id": "ok", "command": ["sleep", "2.5"]})
    bench.dies(bench.worker(point), point)


def without_a_message(bench: Bench, point: str) -> None:
    """Their messages were lost, or never published."""
    bench.submit_silently(OK, BAD)
    bench.dies(bench.worker(point), point)


def without_the_key(bench: Bench, point: str) -> None:
    """A worker finds requests that others can read, and it cannot."""
    bench.submit_silently(OK, BAD)
    bench.dies(bench.worker(point, {"ENCRYPTION_KEYS": ""}), point)


def too_late_to_start(bench: Bench, point: str) -> None:
    bench.submit_silently({**OK, "expires_in": 0.2})
    bench.dies(bench.worker(point), point)


def taken_over(bench: Bench, point: str) -> None:
    """One worker has died with the answer of ECS, the next dies when it takes over."""
    bench.submit(OK)
    bench.dies(bench.worker("launch.answered"), "launch.answered")
    bench.dies(bench.worker(point), point)


def told_by_an_event(bench: Bench, point: str) -> None:
    """One worker, which reads no events, has died with the answer of ECS; the next dies when it hears of the task."""
    bench.submit(OK)
    bench.dies(bench.worker("launch.answered", {"EVENT_QUEUE_URL": ""}), "launch.answered")
    bench.dies(bench.worker(point), point)


def over_its_time(bench: Bench, point: str) -> None:
    bench.submit({"id": "long", "command": ["sleep", "60"], "time_limit": 0.5})
    bench.dies(bench.worker(point), point)


def with_an_unreadable_element(bench: Bench, point: str) -> None:
    """It is no request: it may be lost, and does no harm to those that are."""
    bench.redis.lpush(f"{bench.namespace}:q:requests.default", b"no message at all")
    bench.dies(bench.worker(point), point)
    bench.submit(OK, BAD)


def with_a_dead_letter(bench: Bench, point: str) -> None:
    """A message that holds no envelope: kept, once or twice."""
    bench.publish(b"not an envelope")
    bench.dies(bench.worker(point), point)
    bench.submit(OK, BAD)
    assert {letter.body for letter in bench.queue.ledger.dead(10)} == {b"not an envelope"}


def impossible(bench: Bench, point: str) -> None:
    """A producer that checks nothing asks for what RunTask can never take."""
    now = bench.queue.ledger.now()
    request = envelope.new_request(
        id="ok",
        command=["true"],
        executor_config={"overrides": "none"},
        now=now,
        accept_seconds=600,
        owner="here",
    )
    body = envelope.encode(request)
    bench.publish(body)
    bench.expect("ok", envelope.nonce_of(bench.namespace, body))
    bench.dies(bench.worker(point), point)


def a_token_used_before(bench: Bench, point: str) -> None:
    """ECS has a task for this launch, with other arguments: it is ours by its startedBy."""
    draft = bench.queue.prepare(OK)
    nonce = draft.submission.nonce
    ecs_client(bench.endpoint_url).run_task(
        cluster="local",
        taskDefinition="local",
        clientToken=client_token_of("ok", nonce, 1),
        startedBy=startedby_of(bench.namespace, "ok", nonce, 1),
    )
    bench.handles += bench.queue.send([draft])
    bench.dies(bench.worker(point), point)


def not_wanted_any_more(bench: Bench, point: str) -> None:
    """A worker sleeps on ECS's answer until others have gone on to the next launch number."""
    bench.submit({"id": "ok", "command": ["sleep", "no number"]})
    sleeper = bench.worker(f"launch.answered=pause,{point}")
    bench.pauses(sleeper)
    bench.worker()
    wait_for(lambda: bench.record("ok").launch > 1, PATIENCE, "another worker goes on")
    sleeper.send_signal(signal.SIGCONT)
    bench.dies(sleeper, point)


def stopped_in_doubt(bench: Bench, point: str) -> None:
    """Nobody knows whether RunTask was sent when the stop comes: it is looked for, until nothing found is proof."""
    bench.submit(OK)
    bench.dies(bench.worker("launch.calling"), "launch.calling")
    assert bench.queue.stop("ok") is State.LAUNCHING
    proof_at = bench.record("ok").last_claim_at + LEASE + SETTLE
    if point == "launch.none":  # else the first look comes too early to end it
        wait_for(lambda: bench.queue.ledger.now() > proof_at, PATIENCE, "nothing found is proof")
    bench.dies(bench.worker(point), point)


def _newer_target(bench: Bench, **changes: str) -> None:
    """As a newer version would have frozen it."""
    fields: dict[Any, Any] = {"target": '{"galaxy": "far away"}', **changes}
    bench.redis.hset(f"{bench.namespace}:l:r:ok", mapping=fields)


def in_doubt_and_nowhere_to_look(bench: Bench, point: str) -> None:
    """An hour after the call nothing that anybody could see would be proof any more."""
    bench.submit(OK)
    bench.dies(bench.worker("launch.calling"), "launch.calling")
    _newer_target(bench, first_called_at=str(bench.record("ok").first_called_at - 3700))
    bench.dies(bench.worker(point), point)


def stopped_and_nowhere_to_look(bench: Bench, point: str) -> None:
    """Its task ends by itself, and no worker here knows where that was."""
    bench.submit({"id": "ok", "command": ["sleep", "0.5"]})
    bench.dies(bench.worker("launch.launched"), "launch.launched")
    _newer_target(bench)
    assert bench.queue.stop("ok") is State.LAUNCHED
    wait_for(
        lambda: [task["lastStatus"] for task in all_tasks(bench.endpoint_url)] == ["STOPPED"], PATIENCE, "it has ended"
    )
    bench.dies(bench.worker(point), point)


def an_error_of_the_ledger(bench: Bench, point: str) -> None:
    """The record's key is unusable for a while."""
    key = f"{bench.namespace}:l:r:ok"
    draft = bench.queue.prepare(OK)
    bench.redis.set(key, "not a record")
    bench.publish(draft.body)
    bench.expect("ok", draft.submission.nonce)
    bench.dies(bench.worker(point), point)
    bench.redis.delete(key)
    bench.worker()
    wait_for(lambda: bench.queue.ledger.get(["ok"])[0] is not None, PATIENCE, "a record is made of the message")


#: One RunTask in 50 s.
_NARROW = {"RUN_TASK_RATE": "0.02", "RUN_TASK_BURST": "1"}


def stopped_while_waiting(bench: Bench, point: str) -> None:
    """SIGTERM while a message waits for its turn at ECS's quota."""
    bench.submit(OK)
    worker = bench.worker(point, _NARROW)
    bench.until("ok", State.LAUNCHED, State.SUCCESS)
    bench.submit(BAD)
    bench.until_taken()
    bench.until_a_job_waits()
    worker.send_signal(signal.SIGTERM)
    bench.dies(worker, point)


# The points of a client.


def finish_client(bench: Bench) -> Ends:
    """The client is started again, and submits the same; each of its runs is told every result at most once."""
    bench.worker()
    again = bench.client([OK, BAD])
    assert again.wait(60) == 0
    runs = bench.given()
    for run in runs:
        assert len({line["id"] for line in run}) == len(run)
    told = {line["id"]: (line["state"], line["attempts"]) for run in runs for line in run}
    assert all(told[line["id"]] == (line["state"], line["attempts"]) for run in runs for line in run)
    assert {line["id"] for line in runs[-1]} == {"ok", "bad"}
    bench.check(told)
    return told


def a_client_that_submits(bench: Bench, point: str) -> None:
    bench.dies(bench.client([OK, BAD], armed=point), point)


def a_client_that_waits(bench: Bench, point: str) -> None:
    bench.worker()
    bench.dies(bench.client([OK, BAD], armed=point), point)


def a_client_that_stops(bench: Bench, point: str) -> None:
    bench.dies(bench.client([OK, BAD], "--stop", armed=point), point)


def a_client_whose_requests_were_lost(bench: Bench, point: str) -> None:
    client = bench.client([OK, BAD], armed=point)
    wait_for(lambda: all(bench.queue.ledger.get(["ok", "bad"])), PATIENCE, "they are submitted")
    bench.forget_everything()
    bench.dies(client, point)


_ON_ITS_WAY = (
    "broker.popped",
    "broker.taken",
    "broker.acking",
    "broker.acked",
    "consume.received",
    "consume.dealt_with",
    "launch.admitted",
    "launch.calling",
    "ecs.sending",
    "launch.answered",
    "launch.launched",
    "track.due",
    "track.described",
    "track.outcome",
    "announce.publishing",
    "announce.published",
)
_ONE: Ends = {"ok": ("SUCCESS", 1)}
_REVOKED: Ends = {"ok": ("REVOKED", 0)}
_SEALED = Scenario(without_the_key, BOTH, settings={"ENCRYPTION_KEYS": Fernet.generate_key().decode()})
_NOWHERE = Scenario(in_doubt_and_nowhere_to_look, {"ok": ("UNKNOWN", 1)})
_SILENT = Scenario(without_a_message, BOTH)
_OVERDUE = Scenario(too_late_to_start, {"ok": ("EXPIRED", 0)})
_LONG = Scenario(over_its_time, {"long": ("FAILED", 1)})
_STOPPED = Scenario(stopped_in_doubt, _REVOKED)
_CALLER = Scenario(a_client_that_submits, BOTH, finish=finish_client)
_WAITER = Scenario(a_client_that_waits, BOTH, finish=finish_client)
_REVOKER = Scenario(a_client_that_stops, {"ok": ("REVOKED", 0), "bad": ("REVOKED", 0)}, finish=finish_client)

#: The first looks go wrong, so that events come before them, on a busy machine too: four calls meet this seed's fault,
#: and the ten after them do not.
_LOOKS_LATE = LocalEcsOptions(faults=Faults(server_error=0.5, seed=4160, operations=("DescribeTasks",)))
_TOLD = Scenario(on_its_way, BOTH, _LOOKS_LATE, by_events=True)

SCENARIOS: Mapping[str, Scenario] = {
    **dict.fromkeys(("events.received", "events.outcome", "events.deleting"), _TOLD),
    # Long enough for the second worker to hear of it before the lease is over.
    "events.adopted": Scenario(told_by_an_event, _ONE, settings={"LEASE_SECONDS": "20"}, by_events=True),
    **dict.fromkeys(_ON_ITS_WAY, Scenario(on_its_way, BOTH)),
    "submit.put": _CALLER,
    "submit.published": _CALLER,
    "submit.put_again": Scenario(a_client_whose_requests_were_lost, BOTH, finish=finish_client),
    "stop.marked": _REVOKER,
    "stop.announced": _REVOKER,
    "results.drained": _WAITER,
    "results.handing_over": _WAITER,
    "results.confirming": _WAITER,
    "results.confirmed": _WAITER,
    "broker.closing": Scenario(stopped_while_waiting, BOTH),
    "broker.giving_back": Scenario(stopped_while_waiting, BOTH),
    "broker.given_back": Scenario(stopped_while_waiting, BOTH),
    "consume.giving_back": Scenario(an_error_of_the_ledger, _ONE),
    "consume.unreadable": Scenario(with_an_unreadable_element, BOTH),
    "launch.buried": Scenario(with_a_dead_letter, BOTH),
    "launch.claimed": _SILENT,
    "suspect.held": _SILENT,
    "suspect.let_go": _SILENT,
    "launch.put_aside": _SEALED,
    "launch.given_up": _SEALED,
    "launch.expired": _OVERDUE,
    "launch.reclaimed": Scenario(taken_over, _ONE),
    "launch.asked": Scenario(a_token_used_before, _ONE),
    "launch.stray": Scenario(not_wanted_any_more, {"ok": ("REMOVED", 3)}),
    "launch.no_effect": Scenario(on_its_way, BOTH, faulty(throttle=0.5)),
    "launch.unsure": Scenario(on_its_way, BOTH, faulty(server_error=0.5)),
    "launch.refused": Scenario(on_its_way, BOTH, faulty(capacity=0.5)),
    "launch.impossible": Scenario(impossible, {"ok": ("FAILED", 1)}),
    "launch.looked": _STOPPED,
    "launch.look_failed": Scenario(
        stopped_in_doubt,
        _REVOKED,
        LocalEcsOptions(faults=Faults(server_error=0.5, seed=_FIRST_CALL, operations=("ListTasks",))),
    ),
    "launch.none": _STOPPED,
    "launch.taken_unread": _NOWHERE,
    "launch.unknown": _NOWHERE,
    "track.rested": Scenario(running_long, _ONE),
    "track.stop_marked": _LONG,
    "track.stop_unread": Scenario(stopped_and_nowhere_to_look, {"ok": ("UNKNOWN", 1)}),
    "stop.ordering": _LONG,
    "stop.ordered": _LONG,
    "sweep.expired": _OVERDUE,
    "sweep.popped": _SILENT,
}
