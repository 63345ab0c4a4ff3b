"""Every kind of decision, made by a launcher on a fake ECS, as the journal keeps it.

`python -m tests.journal.scenes > tests/journal/golden/vN.jsonl` makes the golden file of a new version; those of
older versions stay as they are.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.record import startedby_of
from ecs_queue.journal import JournalEvent
from ecs_queue.journal.encode import encode_event
from ecs_queue.journal.export import line_of
from ecs_queue.journal.versions import event_of
from tests.launcher.fake_ecs import DENIED, Lost
from tests.launcher.lab import Lab

OURS = "arn:aws:ecs:us-east-1:123456789012:task/jobs/ours"


class Notebook:
    """A sink that encodes at once, by the lab's clock."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.events: list[JournalEvent] = []
        lab.worker.parts.telemetry.add_sink(self.record)

    def record(self, name: str, fields: dict[str, Any]) -> None:
        raw = msgspec.json.decode(encode_event(self._lab.clock(), name, fields))
        self.events.append(event_of({**raw, "seq": f"{len(self.events) + 1}-0.0", "worker": "w"}))


def play_scenes() -> list[JournalEvent]:
    """One request a scene; the events of all of them."""
    lab = Lab()
    notebook = Notebook(lab)
    for scene in (_ends, _answers, _conflicts, _doubt, _stops, _lost):
        scene(lab)
    return notebook.events


def _ends(lab: Lab) -> None:
    """Success, failure, relaunch, start failure, interruption."""
    environment = [{"name": "API_TOKEN", "value": "hunter2"}]
    arn = lab.launched("ok", executor_config={"environment": environment})
    lab.later(1)
    lab.ecs.run(arn)
    lab.later(1)
    lab.ecs.end(arn)
    failed, relaunched = lab.launched("failed"), lab.launched("again", relaunch="any_failure")
    for ended in (failed, relaunched):
        lab.ecs.end(ended, exit_code=3)
    lab.ecs.fail_to_start(lab.launched("never"))
    lab.ecs.interrupt(lab.launched("spot", relaunch="interrupted"))
    lab.pass_time(70)
    for task in lab.ecs.alive():
        lab.ecs.end(task["taskArn"])
    lab.pass_time(15)


def _answers(lab: Lab) -> None:
    """Each kind of answer to RunTask."""
    kinds = (Kind.THROTTLED, Kind.NEVER_SENT, Kind.CAPACITY, Kind.START_FAILURE, Kind.PERMANENT)
    for kind in kinds:
        reason = f"ECS said {kind.value} to postgres://jobs:hunter2@db/x"
        lab.ecs.answers.append(RunAnswer(kind, reason=reason, code=kind.value))
        lab.worker.take(lab.body(f"answered-{kind.value.replace('_', '-')}"))
    lab.ecs.answers.append(Lost.WITH_5XX)
    lab.worker.take(lab.body("answered-5xx"))
    lab.pass_time(140, step=10)


def _conflicts(lab: Lab) -> None:
    """Ours, somebody else's, and one that is not shown."""
    body = lab.put("conflict-ours")
    lab.ecs.add_task(OURS, startedby_of("ecs-queue", "conflict-ours", lab.record("conflict-ours").nonce, 1))
    lab.ecs.add_task(f"{OURS}-not", "somebody/else")
    for record_id, named in (("conflict-ours", OURS), ("conflict-other", f"{OURS}-not"), ("conflict-gone", "arn:x")):
        lab.ecs.answers.append(RunAnswer(Kind.CONFLICT, reason="token used", conflicting=(named,)))
        lab.worker.take(body if record_id == "conflict-ours" else lab.body(record_id))


def _doubt(lab: Lab) -> None:
    """Calls that nobody heard the answer of, and looks for what they have started."""
    for record_id, lost in (("doubt-found", Lost.AFTER), ("doubt-none", Lost.BEFORE)):
        lab.ecs.answers.append(lost)
        lab.worker.take(lab.body(record_id))
        lab.memory.stop([record_id], "alice")
    lab.ecs.list_trouble = DENIED
    lab.pass_time(20)
    lab.ecs.list_trouble = None
    lab.pass_time(800, step=40)


def _stops(lab: Lab) -> None:
    """By a user, and by the time limit."""
    lab.ecs.run(lab.launched("stopped"))
    lab.ecs.run(lab.launched("slow", time_limit=5.0))
    lab.later(1)
    lab.memory.stop(["stopped"], "alice")
    lab.pass_time(15)


def _lost(lab: Lab) -> None:
    """A task that ECS forgets."""
    lab.ecs.hidden.add(lab.launched("forgotten"))
    lab.pass_time(700, step=50)


if __name__ == "__main__":
    for event in play_scenes():
        sys.stdout.buffer.write(line_of(event) + b"\n")
