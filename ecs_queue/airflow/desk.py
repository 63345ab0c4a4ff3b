"""The executor's side of ledger and broker: bounded, and it answers None instead of raising when one is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from ecs_queue.airflow.checks import CheckedRequests
from ecs_queue.airflow.outage import Outage
from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Broker, Outgoing, ResultInbox
from ecs_queue.client import Submitted
from ecs_queue.config import Config
from ecs_queue.core import envelope
from ecs_queue.core.envelope import TaskResult, decode_result, result_of
from ecs_queue.core.plan import submission_of
from ecs_queue.core.protocol import Answer, Word
from ecs_queue.core.record import Record
from ecs_queue.crashpoints import reach
from ecs_queue.errors import UndecodableMessage, UnverifiedMessage
from ecs_queue.journal import JournalStore, open_store
from ecs_queue.journal.client import ClientJournal
from ecs_queue.keyring import open_keyring
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import Ledger

#: One round trip each: with Airflow's usual workloads half a megabyte.
SEND_AT_ONCE = 250
_WAIT = 0.002  # for the broker's answer to "is there a result?"


class Desk:
    """One scheduler job's access. `owner` names its results.

    Used by the scheduler's one thread, and by the two of `send_soon`, one for the ledger and one for the broker: never
    two at once on one connection, for the scheduler's only prepares what is sent next, and waits for all that is under
    way before it does anything else.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        owner: str,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.time,
        on_failure: Callable[[str], None] = lambda _: None,
        journal: JournalStore | None = None,
    ) -> None:
        """`on_failure("ledger" or "broker")` is called for each call that fails."""
        self.config = config
        self.owner = owner
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._journal = ClientJournal(journal, config.namespace)
        self._checked = CheckedRequests(config)
        self._keyring = open_keyring(config)
        self._log = log
        self._inbox: ResultInbox | None = None
        self._putter = ThreadPoolExecutor(1, "ecs-queue-put")  # a pool's thread starts with the first use
        self._announcer = ThreadPoolExecutor(1, "ecs-queue-announce")
        self.ledger_outage = Outage("ledger", log, on_failure=lambda: on_failure("ledger"))
        self.broker_outage = Outage("broker", log, on_failure=lambda: on_failure("broker"))

    @classmethod
    def open(cls, config: Config, owner: str, log: logging.Logger, on_failure: Callable[[str], None]) -> Desk:
        """By the configuration; connects when first used."""
        return cls(
            config,
            open_broker(config),
            open_ledger(config),
            owner,
            log,
            on_failure=on_failure,
            journal=open_store(config),
        )

    @property
    def closed_for_now(self) -> bool:
        """Whether the ledger has just failed and is left alone: nothing can be accepted."""
        return self.ledger_outage.resting

    def prepare(self, line: Mapping[str, Any]) -> Submitted:
        """As `EcsQueue.prepare`, but what many tasks have in common is checked once. InvalidRequest, ConfigError."""
        config = self.config
        request = envelope.new_request(
            now=self._clock(), accept_seconds=config.accept_seconds, owner=self.owner, **line
        )
        self._checked.check(request)
        body = envelope.encode(request, self._keyring)
        nonce = envelope.nonce_of(config.namespace, body)
        return Submitted(request, body, submission_of(request, body, nonce, config.launch_deadline))

    def hurry(self) -> AbstractContextManager[None]:
        """Within, the scheduler waits for what is sent: the journal's thread leaves it the interpreter."""
        return self._journal.held()

    def send_soon(self, drafts: Sequence[Submitted]) -> Future[list[Answer]]:
        """Put and announce at most `SEND_AT_ONCE` drafts, while the caller prepares the next: servers take their time.

        The ledger's answers in order, none when it cannot be reached; they are there when all is announced.
        """
        return self._announcer.submit(self._announce, drafts, self._putter.submit(self._put, drafts))

    def _put(self, drafts: Sequence[Submitted]) -> list[Answer]:
        submissions = [draft.submission for draft in drafts]
        answers = self.ledger_outage.attempt(lambda: self._ledger.put(submissions)) if submissions else []
        reach("airflow.put")
        answered = zip(submissions, answers or (), strict=False)
        self._journal.submitted(new for new, answer in answered if answer.word is Word.CREATED)
        return answers or []

    def _announce(self, drafts: Sequence[Submitted], put: Future[list[Answer]]) -> list[Answer]:
        answers = put.result()
        answered = zip(drafts, answers, strict=False)
        self._publish([draft for draft, answer in answered if answer.word not in (Word.CONFLICT, Word.TOO_LATE)])
        return answers

    def _publish(self, drafts: Sequence[Submitted]) -> None:
        """Announce what the ledger has; in an outage the workers' sweep finds it."""
        messages = [Outgoing(d.request.queue, d.body, d.request.priority) for d in drafts]
        if messages:
            self.broker_outage.attempt(lambda: self._broker.publish_requests(messages))
            reach("airflow.published")

    def results(self, deadline: float) -> Iterator[TaskResult]:
        """What result messages speak of, as the ledger has it; until `deadline` (monotonic) at the latest."""
        while not self.closed_for_now:
            bodies = self.broker_outage.attempt(self._drain)
            yield from self._verified(bodies or ())
            if not bodies or time.monotonic() >= deadline:
                return

    def _verified(self, bodies: Sequence[bytes]) -> Iterator[TaskResult]:
        """A message says where to look; what is true the ledger says. So a forged or mistaken one does no harm."""
        told: dict[tuple[str, str], None] = {}
        for body in bodies:
            try:
                result = decode_result(body, self._keyring)
            except UnverifiedMessage as error:
                self._log.warning("ecs-queue: a result message is not believed, the ledger is asked: %s", error)
                continue
            except UndecodableMessage:
                continue  # not of this version
            told[result.id, result.nonce] = None
        records = self.get([request_id for request_id, _ in told]) or ()  # in an outage it is asked later
        for (_, nonce), record in zip(told, records, strict=False):
            if record is not None and record.nonce == nonce and record.ended:
                yield result_of(record)

    def undelivered(self, limit: int) -> list[TaskResult] | None:
        """Results that are not confirmed, oldest first."""
        records = self.ledger_outage.attempt(lambda: self._ledger.undelivered(self.owner, limit))
        return None if records is None else [result_of(record) for record in records]

    def get(self, ids: Sequence[str]) -> list[Record | None] | None:
        """The records as they stand."""
        return self.ledger_outage.attempt(lambda: self._ledger.get(ids)) if ids else []

    def adopt(self, ids: Sequence[str]) -> list[Answer] | None:
        """Make them this owner's."""
        return self.ledger_outage.attempt(lambda: self._ledger.adopt(ids, self.owner)) if ids else []

    def stop(self, ids: Sequence[str], by: str) -> list[Answer] | None:
        """Ask for stops; an unknown id is revoked when it arrives."""
        answers = self.ledger_outage.attempt(lambda: self._ledger.stop(ids, by)) if ids else []
        for record_id, answer in zip(ids, answers or (), strict=False):
            self._journal.stop_asked(record_id, by, answer.word)
        return answers

    def confirm(self, results: Sequence[tuple[str, str]]) -> list[Answer] | None:
        """Their results have arrived for good."""
        return self.ledger_outage.attempt(lambda: self._ledger.confirm(results, self.owner)) if results else []

    def complaints(self) -> list[str]:
        """What is wrong with ledger and broker, as sentences."""
        problems = self.ledger_outage.attempt(self._ledger.check)
        found = ["the ledger cannot be reached"] if problems is None else list(problems)
        if problems is not None and not self.broker_outage.attempt(self._broker_answers):
            found.append("the broker cannot be reached")
        return found

    def close(self) -> None:
        """Give the connections back; requests go on, their results stay in the ledger."""
        self._putter.shutdown()
        self._announcer.shutdown()
        if self._inbox is not None:
            self._inbox.close()
        self._journal.close()
        self._broker.close()
        self._ledger.close()

    def _broker_answers(self) -> bool:
        self._broker.check()
        return True

    def _drain(self) -> list[bytes]:
        if self._inbox is None:
            self._inbox = self._broker.results(self.owner)
        bodies = self._inbox.drain(_WAIT)
        if bodies:
            reach("airflow.drained")
        return bodies
