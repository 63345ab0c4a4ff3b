"""A launcher worker: every service in one process. Start more of them, anywhere, to launch more."""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
from ecs_queue.ecs.gateway import BotoEcsGateway, EcsGateway
from ecs_queue.journal import JournalStore, Recorder
from ecs_queue.keyring import open_keyring
from ecs_queue.launcher.announce import Announcer
from ecs_queue.launcher.circuit import Circuits
from ecs_queue.launcher.consume import Consumer
from ecs_queue.launcher.events import event_services
from ecs_queue.launcher.gates import Gates
from ecs_queue.launcher.inflight import InFlight
from ecs_queue.launcher.lanes import Lanes
from ecs_queue.launcher.launch import Launcher
from ecs_queue.launcher.pace import make_pace
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.quota import Quota, Tokens, reserve_of
from ecs_queue.launcher.service import PeriodicService, Service
from ecs_queue.launcher.slots import Slots
from ecs_queue.launcher.suspects import Suspects
from ecs_queue.launcher.sweep import Sweeper
from ecs_queue.launcher.track import Tracker
from ecs_queue.launcher.vitals import MeteredGateway, Vitals
from ecs_queue.ledger.base import Ledger, WorkerInfo
from ecs_queue.telemetry import Telemetry

_HEARTBEAT_EVERY = 2.0
#: How long a worker counts as alive after its last word, at most; below the lease, for who takes a record over asks.
_HEARTBEAT_TTL = 15.0
#: What a stop may take: the calls in hand end, what was not started is given back. Seconds.
STOP_BUDGET = 8.0
#: After so long the journal's writer lets launches go first: to change threads takes longer than an event. Seconds.
_JOURNAL_TURN = 0.001
#: Tokens to launch are fetched for slots that are free. Not used at once they have lost their launches, to a pause say,
#: and meanwhile their bucket may have filled up to a whole burst. Seconds.
_LAUNCH_TOKENS_FRESH = 0.25
#: What the last events may take at least to be written. Seconds.
_JOURNAL_TAKES = 0.2


class Worker:
    """Owns its threads, not its broker and ledger. `start`, then `stop` (idempotent, from anywhere), then `join`."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        *,
        queues: Sequence[str] = ("default",),
        name: str = "",
        telemetry: Telemetry | None = None,
        gateway: EcsGateway | None = None,
        journal: JournalStore | None = None,
    ) -> None:
        """`journal`: where it is written, none without."""
        self._config = config
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.queues = list(queues)
        self._telemetry = telemetry or Telemetry()
        self._recorder = None if journal is None else Recorder(journal, self._telemetry, self.name, turn=_JOURNAL_TURN)
        self._ledger = ledger
        self._stopping = threading.Event()
        self._started_at = 0.0
        self._version = _version()
        self._clients = EcsClients(
            ClientOptions(
                connect_timeout=config.connect_timeout_seconds,
                read_timeout=config.read_timeout_seconds,
                max_pool_connections=config.concurrency + 4,
            )
        )
        self._announcer = Announcer(broker, self._telemetry, keyring=open_keyring(config))
        self._tokens = Tokens(ledger, time.monotonic, self._telemetry)
        self._vitals = Vitals(time.monotonic)
        self._parts = self._make_parts(gateway or BotoEcsGateway(self._clients, time.monotonic))
        gates = self._parts.gates
        lanes = Lanes(lambda queue: config.profile(queue).weight, gates)
        self._slots = Slots(config.concurrency, self._telemetry, self._tokens, lanes)
        gates.when_asked(self._slots.kick)
        launcher = Launcher(self._parts)
        self._consumer = Consumer(self._parts, broker, launcher, self._slots, self.queues)
        sweeper = Sweeper(self._parts, launcher, self._slots, self.queues, self._consumer.idle)
        tracker = Tracker(self._parts, self._slots, launcher.recover)
        polling = self._vitals.polling(self._consumer.step)
        self._consuming = PeriodicService("consumer", polling, self._telemetry, finish=self._give_back)
        self._services: list[Service] = [
            PeriodicService("tracker", tracker.step, self._telemetry),
            PeriodicService("sweeper", sweeper.step, self._telemetry),
            PeriodicService("gates", gates.step, self._telemetry),
            PeriodicService("heartbeat", self._heartbeat, self._telemetry),
            *event_services(self._parts, tracker.judge, self._clients, self.queues),
        ]

    def check(self) -> None:
        """ConfigError when a queue's profile cannot launch anything; findings of AWS are told as health."""
        for queue in self.queues:
            profile = self._config.profile(queue)
            profile.require_launchable()
            target = self._parts.target_for(queue)
            if profile.check_health_on_startup:
                for finding in self._parts.gateway.check(target):
                    self._telemetry.emit("health", queue=queue, reason=finding)
        for finding in self._ledger.check():
            self._telemetry.emit("health", queue="*", reason=finding)

    def start(self) -> None:
        """Start every service; returns at once."""
        self._started_at = self._ledger.now()
        if self._recorder is not None:
            self._recorder.start()
        self._announcer.start()
        for service in self._services:
            service.start()
        self._consuming.start()
        self._telemetry.emit("worker.started", worker=self.name, queues=", ".join(self.queues))

    def stop(self) -> None:
        """Ask for the end: the calls in hand are finished, the rest is given back. Returns at once."""
        if not self._stopping.is_set():
            self._telemetry.emit("worker.stopping", worker=self.name, in_hand=self._slots.in_hand)
        self._stopping.set()
        self._consuming.stop()
        for service in self._services:
            service.stop()  # or they would go on starting launches while the calls in hand come to their end

    def join(self, timeout: float = STOP_BUDGET) -> bool:
        """Wait for the end after `stop`; False when something still ran after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._stopping.wait()
        ended = self._consuming.join(timeout)
        self._slots.close()
        ended = not self._slots.in_hand and ended  # who gave up on a call has not ended in order
        for service in self._services:
            ended = service.join(max(0.1, deadline - time.monotonic())) and ended
        self._announcer.stop()
        ended = self._announcer.join(max(0.5, deadline - time.monotonic())) and ended
        self._telemetry.emit("worker.stopped", worker=self.name)
        if self._recorder is not None:  # last: it writes what all the others had to tell
            self._recorder.stop()
            ended = self._recorder.join(max(_JOURNAL_TAKES, deadline - time.monotonic())) and ended
        return ended

    def _give_back(self) -> None:
        """On the consumer's thread, at the end: let the calls in hand finish, give the rest back."""
        self._consumer.settle(STOP_BUDGET - 2)
        self._consumer.close()

    def _make_parts(self, gateway: EcsGateway) -> Parts:
        config, ledger, tokens = self._config, self._ledger, self._tokens
        launch, read = config.run_task_burst, config.describe_tasks_burst
        circuits = Circuits(time.monotonic, self._telemetry)
        return Parts(
            config=config,
            worker=self.name,
            ledger=ledger,
            gateway=MeteredGateway(gateway, self._vitals),
            target_for=self._target_for,
            run_quota=Quota(tokens, "run_task", config.run_task_rate, launch, reserve_of(launch), _LAUNCH_TOKENS_FRESH),
            stop_quota=Quota(tokens, "run_task", config.run_task_rate, launch),
            read_quota=Quota(tokens, "describe", config.describe_tasks_rate, read),
            suspects=Suspects(ledger, config.max_deliveries),
            circuits=circuits,
            gates=Gates(ledger, config, circuits, self.queues),
            in_flight=InFlight(time.monotonic),
            pace=make_pace(ledger, config, time.monotonic, self._telemetry),
            publish=self._announcer.publish,
            telemetry=self._telemetry,
            monotonic=time.monotonic,
            rest=self._stopping.wait,
            new_id=lambda: secrets.token_hex(8),
            rng=random.Random(),
        )

    def _target_for(self, queue: str) -> Target:
        return self._clients.target_for(self._config.profile(queue))

    def _heartbeat(self) -> float:
        self._ledger.heartbeat(self._info(), min(_HEARTBEAT_TTL, 0.75 * self._config.lease_seconds))
        return _HEARTBEAT_EVERY

    def _info(self) -> WorkerInfo:
        return WorkerInfo(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._version,
            queues=self.queues,
            concurrency=self._config.concurrency,
            launching=self._slots.in_hand,
            following=len(self._parts.in_flight),
            launched=self._telemetry.count("launch.started"),
            finished=self._telemetry.count("request.ended"),
            health=self._parts.circuits.health(),
            started_at=self._started_at,
            launch_rate=self._vitals.launches.rate(),
            start_calls=self._vitals.starts.rate(),
            start_quota=self._config.run_task_rate,
            read_calls=self._vitals.reads.rate(),
            read_quota=self._config.describe_tasks_rate,
            poll_age=self._vitals.polls.age(),
            describe_age=self._vitals.reads.age(),
        )


def _version() -> str:
    try:
        return version("ecs-queue")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
