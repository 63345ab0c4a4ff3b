"""A simulation with warm pools: runners beside the launchers, and requests of several shapes beside plain ones."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from ecs_queue.config import Config, load_config
from ecs_queue.protocol.runs import CLOSED_AS_SILENT, CLOSED_BY_RUNNER, RunPhase
from ecs_queue.runs.runner_options import RunnerOptions
from tests.simulation.ecs import SimTask, draw_version_growth
from tests.simulation.events import draw_event_faults
from tests.simulation.faults import SimFaults, draw_faults
from tests.simulation.policies import SimPolicies, draw_warm_policies
from tests.simulation.process import HistoryLine, SimulationContext
from tests.simulation.runners import RunnerFaults, SimRunner, draw_runner_faults
from tests.simulation.simulation import MAX_STEPS, Simulation, SimulationReport, make_environ, simulated_time
from tests.simulation.warm_monitor import WARM_QUEUE, WarmMonitor

#: Of the draws of a seed: how long a runner waits, its greatest age, and when it is lost.
_WARM_SETTINGS = (("10", "60", "200", "200"), ("0", "0", "100"), ("60", "300"))
_SECTION = f"AIRFLOW__AWS_ECS_EXECUTOR_{WARM_QUEUE.upper()}__"


def simulate_warm(
    seed: int,
    *,
    trace: bool = False,
    faults: SimFaults | None = None,
    runner_faults: RunnerFaults | None = None,
    max_steps: int = MAX_STEPS,
) -> SimulationReport:
    """Run one seed, with these faults in place of its own if given. The same seed gives the same report."""
    lines: list[HistoryLine] | None = [] if trace else None
    context = SimulationContext(seed, SimFaults(), lines)
    context.faults = draw_faults(context.rng) if faults is None else faults
    drawn = draw_runner_faults(seed) if runner_faults is None else runner_faults
    with simulated_time(context):
        policies = draw_warm_policies(seed)
        simulation = WarmSimulation(context, drawn, draw_event_faults(seed), draw_version_growth(seed), policies)
        simulation.run(max_steps)
    return simulation.report(seed, lines)


@cache
def _make_warm_config(
    task_definition: str, settings: tuple[str, ...], event_queue_url: str, policies: SimPolicies, warm: tuple[str, ...]
) -> Config:
    environ, overrides = make_environ(task_definition, settings, event_queue_url, policies)
    warm_seconds, warm_max_age, runner_lost_seconds = warm
    environ |= {f"{_SECTION}WARM_SECONDS": warm_seconds, f"{_SECTION}WARM_MAX_AGE": warm_max_age}
    overrides |= {"runner_lost_seconds": runner_lost_seconds, "stop_timeout": "5"}
    return load_config(environ=environ, overrides=overrides)


class WarmSimulation(Simulation):
    """See `Simulation`. It keeps the processes of runners in the tasks of `ecs`, as its `SimRunners`."""

    monitor: WarmMonitor

    def __init__(self, context: SimulationContext, runner_faults: RunnerFaults, *more: Any) -> None:
        self._runner_faults = runner_faults
        self._runners: dict[str, SimRunner] = {}  # by the ARN of the task
        self._boots: Counter[str] = Counter()
        self._shapes: dict[str, object] = {}
        super().__init__(context, *more)
        self.ecs.runners = self
        self.ledger.loses_hint = lambda: context.happens(self._runner_faults.hint_lost)

    def run(self, max_steps: int) -> None:
        """See `Simulation`."""
        self._context.trace(f"faults of runners: {self._runner_faults}")
        super().run(max_steps)

    def _make_configs(self, settings: tuple[str, ...], event_queue_url: str, policies: SimPolicies) -> list[Config]:
        warm = tuple(self._context.rng.choice(values) for values in _WARM_SETTINGS)
        settings = (*settings[:-1], "0")  # no limit of a queue: there are two
        return [_make_warm_config(f"family:{number}", settings, event_queue_url, policies, warm) for number in (1, 2)]

    def _make_monitor(self, config: Config) -> WarmMonitor:
        monitor = WarmMonitor(self._context, config)
        monitor.prepare(self._shapes.__getitem__)
        return monitor

    def _draw_fields(self, request_id: str) -> dict[str, Any]:
        rng = self._context.rng
        if rng.random() < 0.2:
            return {}
        shape = self._shapes[request_id] = rng.choice(({}, {}, {"cpu": 512}))
        return {"queue": WARM_QUEUE, "executor_config": dict(shape)}

    def _request_count(self) -> int:
        return self._context.rng.choice((3, 5, 8))

    # What happens in containers: `SimRunners`.

    def _task_created(self, task: SimTask) -> None:
        super()._task_created(task)
        context = self._context
        if task.runner_options is not None and context.happens(self._runner_faults.drained):
            seconds = context.rng.choice((1.0, 20.0, 100.0)) * context.rng.random()
            context.scheduler.call_after(seconds, self._drain)

    def start(self, task: SimTask, options: RunnerOptions) -> None:
        """See `SimRunners`."""
        self._start_process(task, options)
        context, faults = self._context, self._runner_faults
        for probability, strike in (
            (faults.spot, self.ecs.interrupt),
            (faults.stopped_by_hand, self.ecs.stop_by_hand),
            (faults.run_expires, self._expire_run),
            (faults.taken_for_silent, self._take_for_silent),
        ):
            if context.happens(probability):
                seconds = context.rng.choice((5.0, 50.0, 200.0)) * context.rng.random()
                context.scheduler.call_after(seconds, lambda strike=strike: strike(task))  # type: ignore[misc]

    def terminate(self, task: SimTask) -> None:
        """See `SimRunners`."""
        runner = self._runners.get(task.arn)
        if runner is not None:
            runner.terminate()

    def task_ended(self, task: SimTask) -> None:
        """See `SimRunners`."""
        runner = self._runners.pop(task.arn, None)
        if runner is not None:
            runner.end()
        if self._context.happens(self._runner_faults.forgotten):
            self._context.trace(f"ECS forgets {task.arn[-2:]}")
            task.visible_from = float("inf")

    def on_stop_task(self, task: SimTask, reason: str) -> None:
        """See `SimRunners`."""
        runner = self._runners.get(task.arn)
        self.monitor.on_stop_task(task, None if runner is None else runner.running)

    def starts_two_tasks(self, task: SimTask) -> bool:
        """See `SimRunners`."""
        if not self._context.happens(self._runner_faults.two_tasks):
            return False
        self.monitor.doubled.add(task.started_by)
        return True

    def _start_process(self, task: SimTask, options: RunnerOptions) -> None:
        self._boots[task.arn] += 1
        runner = self._runners[task.arn] = SimRunner(
            self._context,
            task.arn,
            self._boots[task.arn],
            options,
            self.ledger,
            lambda: self._runner_faults,
            self._fail_over,
            self.monitor,
            lambda process, code: self._process_ended(task, options, process, code),
        )
        runner.start()

    def _process_ended(self, task: SimTask, options: RunnerOptions, runner: SimRunner, code: int | None) -> None:
        def follow() -> None:
            if self._runners.get(task.arn) is runner and task.is_running:
                if code is None:
                    self._start_process(task, options)
                else:
                    self.ecs.end_runner(task, code)

        self._context.scheduler.call_after(self._context.rng.uniform(0.0, 5.0), follow)

    def _expire_run(self, task: SimTask) -> None:
        assert task.runner_options is not None
        run = self.ledger.runs.get(task.runner_options.run)
        if run is not None and run.phase is RunPhase.IDLE and not self._faults_over:
            self._context.trace(f"the run {run.name} expires")
            del self.ledger.runs[run.name]

    def _take_for_silent(self, task: SimTask) -> None:
        assert task.runner_options is not None
        run = self.ledger.runs.get(task.runner_options.run)
        if run is not None and run.phase is RunPhase.IDLE and not run.closed and not self._faults_over:
            self._context.trace(f"the run {run.name} is closed as silent")
            run.closed = CLOSED_AS_SILENT
            seconds = self._context.rng.choice((0.0, 10.0)) * self._context.rng.random()
            self._context.scheduler.call_after(seconds, lambda: self._stop_silent(task))

    def _drain(self) -> None:
        """What `pools drain` does; runners and workers act between its steps."""
        names = list(self.ledger.runs)
        self._context.trace("an operator drains the pools")
        self.ledger.drain_runs(names)
        untaken = [run for run in self.ledger.read_runs(names) if run is not None and run.phase is RunPhase.ASSIGNED]
        ids = [run.id for run in untaken]
        seconds = self._context.rng.choice((0.1, 5.0)) * self._context.rng.random()
        self._context.scheduler.call_after(seconds, lambda: self._put_back(names, ids))

    def _put_back(self, names: list[str], ids: list[str]) -> None:
        self._ledger_changed("put_back", self.ledger.put_back(ids))
        self.ledger.drain_runs(names)

    def _stop_silent(self, task: SimTask) -> None:
        self.ecs.stop_task(task.arn, "silent")

    # The end of the faults.

    def _end_faults(self) -> None:
        faults = self._runner_faults
        self._runner_faults = RunnerFaults(ignores_sigterm=faults.ignores_sigterm, exits_1=faults.exits_1)
        super()._end_faults()
        for runner in list(self._runners.values()):
            runner.unreachable.clear()
            if runner.is_hung and not self._is_idle(runner):
                self._release(runner)

    def _is_idle(self, runner: SimRunner) -> bool:
        """Whether launchers find and stop it although it hangs: the run is its own, and no command waits for it."""
        run = self.ledger.runs.get(runner.options.run)
        if run is None or runner.running is not None or run.phase is RunPhase.FETCHED:
            return False
        if not run.boot:  # it hangs before its first word, and its command was taken away
            return bool(run.closed) and run.arn == runner.arn
        return run.boot == runner.boot and run.closed != CLOSED_BY_RUNNER

    def _release(self, runner: SimRunner) -> None:
        """Only its host or a person ends what hangs with a command, before its first or after its last word."""
        if self._context.happens(0.5):
            runner.thaw()
        else:
            self.ecs.end_runner(self.ecs.tasks[runner.arn], 1)
