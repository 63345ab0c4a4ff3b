"""What of a record may be believed: whoever can write to the ledger can write anything into one.

With signing keys a request and its frozen arguments are used only when they are signed for this very record. The
rest of a record is state, and not authenticated: see docs/security.md.
"""

from __future__ import annotations

from collections.abc import Callable

from ecs_queue.core.envelope import TaskRequest, request_of
from ecs_queue.core.keyring import Keyring
from ecs_queue.core.plan import Plan, decode_plan, frozen_scope
from ecs_queue.core.record import Record
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError, UndecodableMessage, UnverifiedMessage


class Trust:
    """`target_for`: a queue's target by this worker's own configuration; ConfigError."""

    def __init__(self, keyring: Keyring, target_for: Callable[[str], Target]) -> None:
        self._keyring = keyring
        self._target_for = target_for

    def request(self, record: Record) -> TaskRequest:
        """See `request_of`: UndecodableMessage, and of its kinds UnverifiedMessage and SealedMessage."""
        return request_of(record, self._keyring)

    def genuine(self, record: Record) -> TaskRequest | None:
        """The request, where its frozen arguments are launched; None: only others can read it. UnverifiedMessage."""
        try:
            return self.request(record)
        except UnverifiedMessage:
            raise
        except UndecodableMessage:
            return None

    def readable(self, record: Record) -> TaskRequest | None:
        """The request, where it only serves to show what runs."""
        try:
            return self.request(record)
        except UndecodableMessage:
            return None

    def plan(self, record: Record) -> Plan:
        """The frozen arguments; UndecodableMessage, and of its kinds UnverifiedMessage and SealedMessage."""
        return decode_plan(record.args, self._keyring, frozen_scope(record))

    def target_text(self, record: Record) -> str:
        """Where the record's task is looked for: its frozen target, or where nobody vouches for that the queue's own.

        A target names a role to assume and an endpoint to talk to: a forged one is not followed. "": neither is known.
        """
        if record.target and self._vouched(record):
            return record.target
        try:
            return self._target_for(record.queue).encode()
        except ConfigError:
            return ""

    def _vouched(self, record: Record) -> bool:
        try:
            self._keyring.verify(record.args.encode(), frozen_scope(record))
        except UnverifiedMessage:
            return False
        return True
