"""Verifies records before a worker uses them: anyone who can write to the ledger can write anything into a record.

With signing keys a request and its frozen arguments are used only when they are signed for this very record. The
rest of a record is state and not authenticated: see docs/security.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError, UndecodableMessage, UnverifiedMessage
from ecs_queue.messages.envelope import decode_record_request
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.request import TaskRequest
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.launch_spec import LaunchSpec, decode_launch_spec, record_args_scope


class RecordVerifier:
    """Verifies and decodes records. `target_for` returns a queue's target by this worker's own configuration."""

    def __init__(self, keyring: Keyring, target_for: Callable[[str], Target]) -> None:
        self._keyring = keyring
        self._target_for = target_for

    def decode_request(self, record: Record) -> TaskRequest:
        """Return the record's request.

        Raises:
            UndecodableMessage: also as UnverifiedMessage (not signed for this record) or SealedMessage (no key here).
        """
        return decode_record_request(record, self._keyring)

    def verify_request(self, record: Record) -> None:
        """Check that the request is signed, where its frozen arguments are launched.

        A request that only other workers can read passes.

        Raises:
            UnverifiedMessage: it is not signed for this record.
        """
        try:
            self.decode_request(record)
        except UndecodableMessage as error:
            if isinstance(error, UnverifiedMessage):
                raise

    def decode_launch_spec(self, record: Record) -> LaunchSpec:
        """Return the frozen arguments; raises as `decode_request` does."""
        return decode_launch_spec(record.args, self._keyring, record_args_scope(record))

    def encoded_target(self, record: Record) -> str:
        """Return the target at which the record's task is searched; "" when none is known.

        That is its frozen target or, without a valid signature of it, its queue's own: a target names a role to
        assume and an endpoint to talk to, so a forged one is not followed.
        """
        with suppress(UnverifiedMessage):
            if record.target:
                self._keyring.verify(record.args.encode(), record_args_scope(record))
                return record.target
        try:
            return self._target_for(record.queue).encode()
        except ConfigError:
            return ""
