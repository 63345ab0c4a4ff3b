"""boto3's client of Amazon SQS: bounded waits, and errors of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

from ecs_queue.broker.failures import unusable_is_unavailable
from ecs_queue.broker_url import parse_sqs_url
from ecs_queue.error_text import error_text
from ecs_queue.errors import BrokerUnavailable, MissingRight, UnusableServer

#: SQS's limit of messages in one call.
MAX_ENTRIES = 10
#: How long SQS holds a call until a message comes; requests of the handlers wait for it. Seconds, a whole number.
LONG_POLL_SECONDS = 1
#: SQS forgets a message after this time: the longest that it offers. Seconds.
_RETENTION_SECONDS = 14 * 24 * 3600
_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def open_client(url: str, socket_timeout: float) -> Any:
    """Return a client for a URL such as sqs://?region=eu-west-1; boto3 finds what the URL leaves out.

    Raises:
        UnusableServer: There is no Region.
    """
    import boto3  # slow, and only for this broker
    from botocore.config import Config

    parsed = parse_sqs_url(url)
    config = Config(
        connect_timeout=socket_timeout,
        read_timeout=socket_timeout + LONG_POLL_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    try:
        return boto3.session.Session(region_name=parsed.region).client(
            "sqs", endpoint_url=parsed.endpoint_url, config=config
        )
    except NoRegionError:
        raise UnusableServer("broker_url: expected a Region, found none: write sqs://?region=eu-west-1") from None


@contextmanager
def wrap_sqs_errors() -> Iterator[None]:
    """Raise the errors of botocore, and UnusableServer, as BrokerUnavailable or MissingRight."""
    try:
        with unusable_is_unavailable():
            yield
    except ClientError as error:
        if _error_code(error) in _DENIED:
            raise MissingRight(
                f"the broker: {error_text(error)}; grant it as in docs/production.md, or create the queue for ecs-queue"
            ) from error
        raise BrokerUnavailable(f"the broker failed: {error_text(error)}; check broker_url and the queue") from error
    except (BotoCoreError, OSError) as error:
        raise BrokerUnavailable(
            f"the broker failed: {error_text(error)}; check the network, the credentials and the Region of SQS"
        ) from error


def _error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


class SqsQueues:
    """The queues of one client, by SQS's names. Thread-safe. Raises botocore's errors."""

    def __init__(self, client: Any, visibility_timeout: int) -> None:
        """`visibility_timeout` is that of queues which it creates, in seconds."""
        self.client = client
        self._visibility_timeout = visibility_timeout
        self._urls: dict[str, str] = {}

    def find_url(self, name: str) -> str | None:
        """Return the URL of a queue, None when it does not exist."""
        if name not in self._urls:
            try:
                self._urls[name] = self.client.get_queue_url(QueueName=name)["QueueUrl"]
            except self.client.exceptions.QueueDoesNotExist:
                return None
        return self._urls[name]

    def find_optional_url(self, name: str) -> str | None:
        """Return the URL of a queue that need not be there; None also when the user may not know of it."""
        try:
            return self.find_url(name)
        except ClientError as error:
            if _error_code(error) in _DENIED:
                return None
            raise

    def knows(self, name: str) -> bool:
        """Return whether the URL is known without a call."""
        return name in self._urls

    def ensure_url(self, name: str) -> str:
        """Return the URL of a queue, which is created if it does not exist."""
        url = self.find_url(name)
        if url is None:
            attributes = {
                "VisibilityTimeout": str(self._visibility_timeout),
                "MessageRetentionPeriod": str(_RETENTION_SECONDS),
            }
            url = self._urls[name] = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    def attribute(self, name: str, attribute: str) -> int | None:
        """Return a number among a queue's attributes, None when the queue does not exist."""
        url = self.find_url(name)
        if url is None:
            return None
        try:
            found = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=[attribute])
        except self.client.exceptions.QueueDoesNotExist:
            self.forget()
            return None
        return int(found["Attributes"][attribute])

    def forget(self) -> None:
        """Ask again for every URL: a queue may have been deleted and made again."""
        self._urls.clear()


def batches(items: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the items in lists of at most as many as one call accepts."""
    left = iter(items)
    while batch := list(islice(left, MAX_ENTRIES)):
        yield batch


def with_ids(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of a batch, each with an id of its own."""
    return [{"Id": str(position), **entry} for position, entry in enumerate(entries)]
