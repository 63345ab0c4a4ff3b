"""What of a record may be believed: whoever can write to the ledger can write anything into one.

With signing keys a request and its frozen arguments are used only when they are signed for this very record. The
rest of a record is state, and not authenticated: see docs/security.md.
"""

from __future__ import annotations

from collections.abc import Callable

from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError, UndecodableMessage, UnverifiedMessage
from ecs_queue.messages.envelope import TaskRequest, decode_record_request
from ecs_queue.messages.keyring import Keyring
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.launch_spec import LaunchSpec, decode_launch_spec, record_args_scope


class RecordVerifier:
    """`target_for`: a queue's target by this worker's own configuration; ConfigError."""

    def __init__(self, keyring: Keyring, target_for: Callable[[str], Target]) -> None:
        self._keyring = keyring
        self._target_for = target_for

    def decode_request(self, record: Record) -> TaskRequest:
        """See `request_of`: UndecodableMessage, and of its kinds UnverifiedMessage and SealedMessage."""
        return decode_record_request(record, self._keyring)

    def decode_verified_request(self, record: Record) -> TaskRequest | None:
        """The request, where its frozen arguments are launched; None: only others can read it. UnverifiedMessage."""
        try:
            return self.decode_request(record)
        except UnverifiedMessage:
            raise
        except UndecodableMessage:
            return None

    def decode_request_or_none(self, record: Record) -> TaskRequest | None:
        """The request, where it only serves to show what runs."""
        try:
            return self.decode_request(record)
        except UndecodableMessage:
            return None

    def decode_launch_spec(self, record: Record) -> LaunchSpec:
        """The frozen arguments; UndecodableMessage, and of its kinds UnverifiedMessage and SealedMessage."""
        return decode_launch_spec(record.args, self._keyring, record_args_scope(record))

    def encoded_target(self, record: Record) -> str:
        """Where the record's task is looked for: its frozen target, or where nobody vouches for that the queue's own.

        A target names a role to assume and an endpoint to talk to: a forged one is not followed. "": neither is known.
        """
        if record.target and self._is_verified(record):
            return record.target
        try:
            return self._target_for(record.queue).encode()
        except ConfigError:
            return ""

    def _is_verified(self, record: Record) -> bool:
        try:
            self._keyring.verify(record.args.encode(), record_args_scope(record))
        except UnverifiedMessage:
            return False
        return True
