"""All errors of the package: retryable, permanent and usage errors, and missing rights.

An error's docstring is its default message. Errors of libraries (kombu, redis, botocore) are wrapped where they arise,
so that callers need no other exception types. Every message says what to do next.
"""

from __future__ import annotations


class EcsQueueError(Exception):
    """ecs-queue failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class EcsExecutorException(EcsQueueError):  # noqa: N818 - the reference API's name
    """Thrown when something unexpected has occurred within the ECS ecosystem."""


class RetryableError(EcsQueueError):
    """The call failed this time; the same call may succeed later."""


class BrokerUnavailable(RetryableError):  # noqa: N818
    """The broker cannot be reached: check broker_url and that the server is running."""


class LedgerUnavailable(RetryableError):  # noqa: N818
    """The ledger cannot be reached: check ledger_url and that the server is running."""


class JournalUnavailable(RetryableError):  # noqa: N818
    """The journal cannot be reached: check ledger_url and that the server is running."""


class WriteNotDurable(LedgerUnavailable):
    """The ledger did not confirm that the write is durable; nothing was launched for it."""


class EventQueueUnavailable(RetryableError):  # noqa: N818
    """The event queue cannot be read: check event_queue_url and the worker's permissions; tasks are polled."""


class ResultTimeout(RetryableError, TimeoutError):  # noqa: N818
    """The request has not ended within the timeout; it continues, ask again later."""


class MissingRight(EcsQueueError):  # noqa: N818 - no outage, since the server answers, and no fault of a request
    """The server denies its user a right; grant it as in conf/redis-users.acl."""


class PermanentError(EcsQueueError):
    """The call cannot succeed; the same call will fail again."""


class InvalidRequest(PermanentError):  # noqa: N818
    """The request is not valid."""


class UndecodableMessage(PermanentError):  # noqa: N818
    """The message is not a valid envelope; it becomes a dead letter."""


class UnverifiedMessage(UndecodableMessage):
    """It is not signed with a key that is known here; it is never launched."""


class SealedMessage(UndecodableMessage):
    """It is encrypted with an unknown key; set the encryption_keys of its producer for this process."""


class IdConflict(PermanentError):  # noqa: N818
    """Another request was submitted under this id; choose another id, or omit it to get a generated one."""


class BrokenRecord(PermanentError):  # noqa: N818
    """The ledger's record of this id cannot be used: `ecs-queue broken list` has the reason."""


class RequestTooLate(PermanentError):  # noqa: N818
    """The request arrived after its accept_until; submit it again."""


class UsageError(EcsQueueError):
    """The caller asked for something that makes no sense."""


class ConfigError(UsageError):
    """The configuration is not valid."""

    def __init__(self, message: str | None = None, queue: str = "") -> None:
        """With a queue it is about that queue's profile, and the message begins with its name."""
        super().__init__(f"queue {queue!r}: {message}" if queue else message)
        #: The message without the queue, for text that names it.
        self.problem = message or str(self)


class UnusableServer(UsageError):  # noqa: N818
    """The server cannot be used as it is configured."""


class UnknownTask(UsageError):  # noqa: N818
    """No request has this id; it was never submitted, or its retention time is over."""
