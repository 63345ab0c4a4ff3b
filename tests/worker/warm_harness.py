"""A runner of a warm queue, and what launchers do with it, over the in-memory ledger."""

from __future__ import annotations

import msgspec

from ecs_queue.protocol.runs import NoTurn, RunEnd, Turn
from ecs_queue.runs.runner_key import Assignment, RunnerCommand
from ecs_queue.runs.runner_options import OPTIONS_VARIABLE, RunnerOptions
from tests.worker.harness import WorkerHarness

WARM = {"AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "60"}


class Runner:
    """One runner process of the launch that RunTask was called for last."""

    def __init__(self, harness: WorkerHarness, arn: str = "") -> None:
        self._harness = harness
        call = harness.ecs.run_task_calls[-1]
        (override,) = call.arguments["overrides"]["containerOverrides"]
        environment = {entry["name"]: entry["value"] for entry in override["environment"]}
        assert override["command"] == ["ecs-queue", "runner"]
        self.options = msgspec.json.decode(environment[OPTIONS_VARIABLE], type=RunnerOptions)
        self.arn = arn or list(harness.ecs.tasks)[-1]

    def next(self, end: RunEnd | None = None, *, signed: bool = True) -> Turn | NoTurn:
        """Ask for a command, with the end of the last one."""
        keys, options = self._harness.worker.context.runner_keys("default"), self.options
        if end is not None and signed:
            end = keys.sign_end(options.namespace, options.queue, options.run, end)
        return self._harness.memory_ledger.next_turn(options.run, "boot", self.arn, end)

    def command(self, turn: Turn) -> list[str]:
        """What the turn is to start."""
        return self.open(turn).command

    def open(self, turn: Turn) -> RunnerCommand:
        """What the turn is to start, with its environment."""
        keys = self._harness.worker.context.runner_keys("default")
        place = Assignment(self.options.namespace, self.options.queue, turn.id, turn.nonce, turn.launch)
        return keys.open_payload(turn.payload, place)


def settle(harness: WorkerHarness) -> None:
    """One round of the settler."""
    harness.worker.poller.run_settler.step()


def start(harness: WorkerHarness, record_id: str = "a", **fields: object) -> Runner:
    """A runner that has taken the command of its first request."""
    harness.launch(record_id, **fields)
    runner = Runner(harness)
    assert isinstance(runner.next(), Turn)
    settle(harness)
    return runner
