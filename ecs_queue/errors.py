"""The one tree of errors: retryable, permanent, usage.

An error's docstring is its default message. Library errors (kombu, redis, botocore) are wrapped in one of
these at the edge where they arise, so that callers need no other tree, and every message says what to do next.
"""

from __future__ import annotations


class EcsQueueError(Exception):
    """ecs-queue failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class EcsExecutorException(EcsQueueError):  # noqa: N818 - the reference API's name
    """Thrown when something unexpected has occurred within the ECS ecosystem."""


class RetryableError(EcsQueueError):
    """It did not work this time; the same call may work later."""


class BrokerUnavailable(RetryableError):  # noqa: N818
    """The broker cannot be reached: check broker_url and that the server is up."""


class LedgerUnavailable(RetryableError):  # noqa: N818
    """The ledger cannot be reached: check ledger_url and that the server is up."""


class JournalUnavailable(RetryableError):  # noqa: N818
    """The journal cannot be reached: check ledger_url and that the server is up."""


class WriteNotDurable(LedgerUnavailable):
    """The ledger could not confirm that the write is durable; nothing was launched for it."""


class EventQueueUnavailable(RetryableError):  # noqa: N818
    """The queue of ECS's events cannot be read: check event_queue_url and the worker's rights; tasks are polled."""


class ResultTimeout(RetryableError, TimeoutError):  # noqa: N818
    """The request has not ended in the given time; it goes on, ask again later."""


class PermanentError(EcsQueueError):
    """It cannot work; the same call will fail again."""


class InvalidRequest(PermanentError):  # noqa: N818
    """The request is not valid."""


class UndecodableMessage(PermanentError):  # noqa: N818
    """The message is no valid envelope; it goes to the dead letters."""


class UnverifiedMessage(UndecodableMessage):
    """It is not signed by a key that is known here; it is never launched."""


class SealedMessage(UndecodableMessage):
    """It is encrypted with a key that is not known here; give this process the encryption_keys of its producer."""


class IdConflict(PermanentError):  # noqa: N818
    """Another request was submitted under this id; choose another id, or none to have one made."""


class RequestTooLate(PermanentError):  # noqa: N818
    """The request arrived after its accept_until; submit it again."""


class UsageError(EcsQueueError):
    """The caller asked for something that makes no sense."""


class ConfigError(UsageError):
    """The configuration is not valid."""


class UnknownTask(UsageError):  # noqa: N818
    """No request with this id is known; it was never submitted, or its retention time is over."""
