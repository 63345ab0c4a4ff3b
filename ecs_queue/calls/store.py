"""Where the payloads of calls are kept for a while: on the ledger's server, or in S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ecs_queue.calls.payload import Direction
from ecs_queue.error_text import error_text
from ecs_queue.errors import LedgerUnavailable, MissingRight, UndecodableMessage, UsageError
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import namespace_prefix
from ecs_queue.server_rights import find_missing_right
from ecs_queue.server_url.iam import IamLogin

_SOCKET_TIMEOUT_SECONDS = 5.0
_DENIED = (
    "S3 denies {operation} for the payload of a call, or the payload is missing and s3:ListBucket is not granted, "
    "without which S3 does not say so; grant the rights that docs/functions.md names"
)


class CallStore(Protocol):
    """Keeps payloads by the call's id and direction.

    Raises:
        LedgerUnavailable: from every method; the call may be repeated.
        MissingRight: from every method.
    """

    def put(self, call_id: str, direction: Direction, payload: bytes, seconds: float) -> None:
        """Keep the payload for at least that long."""
        ...

    def get(self, call_id: str, direction: Direction, max_bytes: int) -> bytes | None:
        """Return the payload; None when there is none.

        Raises:
            UndecodableMessage: It has more than `max_bytes`. No more than that is read.
        """
        ...

    def delete(self, call_id: str) -> None:
        """Drop both payloads of a call."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class MemoryCallStore:
    """A `CallStore` of one process, for tests."""

    def __init__(self) -> None:
        """Start empty."""
        self.payloads: dict[tuple[str, str], bytes] = {}

    def put(self, call_id: str, direction: Direction, payload: bytes, seconds: float) -> None:  # noqa: ARG002 - for ever
        """See `CallStore`."""
        self.payloads[call_id, direction] = payload

    def get(self, call_id: str, direction: Direction, max_bytes: int) -> bytes | None:
        """See `CallStore`."""
        payload = self.payloads.get((call_id, direction))
        return None if payload is None else _check_size(payload, call_id, max_bytes)

    def delete(self, call_id: str) -> None:
        """See `CallStore`."""
        for key in [key for key in self.payloads if key[0] == call_id]:
            del self.payloads[key]

    def close(self) -> None:
        """See `CallStore`."""


class RedisCallStore:
    """A `CallStore` on a Redis or Valkey: one key with a time to live for each payload."""

    def __init__(
        self, url: str, namespace: str, key: str = "ledger_url", iam: IamLogin | None = None, max_connections: int = 8
    ) -> None:
        """Connect with the first call; `key` names where the URL comes from.

        Raises:
            ConfigError: The URL cannot be used.
        """
        self._prefix = f"{namespace_prefix(namespace)}c:"
        self._client: Any = connect(
            url,
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            max_connections=max_connections,
            key=key,
            slot_key=namespace_prefix(namespace),
            iam=iam,
        )

    def put(self, call_id: str, direction: Direction, payload: bytes, seconds: float) -> None:
        """See `CallStore`."""
        with _wrap_errors():
            self._client.set(f"{self._prefix}{direction}:{call_id}", payload, px=max(1, int(seconds * 1000)))

    def get(self, call_id: str, direction: Direction, max_bytes: int) -> bytes | None:
        """See `CallStore`."""
        with _wrap_errors():
            found: bytes = self._client.getrange(f"{self._prefix}{direction}:{call_id}", 0, max_bytes)
        return _check_size(found, call_id, max_bytes) or None  # no payload is empty: the key is missing

    def delete(self, call_id: str) -> None:
        """See `CallStore`."""
        with _wrap_errors():
            self._client.delete(*(f"{self._prefix}{direction}:{call_id}" for direction in ("in", "out")))

    def close(self) -> None:
        """See `CallStore`."""
        self._client.close()


class S3CallStore:
    """A `CallStore` in S3. A lifecycle rule of the bucket drops what a caller that died left behind."""

    def __init__(self, place: str, client: Any = None) -> None:
        """Use `s3://BUCKET/PREFIX`, with boto3's default client unless one is given.

        Raises:
            UsageError: It is no such place.
        """
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        if not place.startswith("s3://") or not bucket:
            raise UsageError(f"expected a place such as s3://bucket/prefix for the payloads of calls, found {place!r}")
        self._bucket, self._prefix = bucket, prefix.rstrip("/") or "ecs-queue-calls"
        self._given_client = client

    def put(self, call_id: str, direction: Direction, payload: bytes, seconds: float) -> None:  # noqa: ARG002 - see above
        """See `CallStore`."""
        with _wrap_errors():
            self._client.put_object(Bucket=self._bucket, Key=self._key(call_id, direction), Body=payload)

    def get(self, call_id: str, direction: Direction, max_bytes: int) -> bytes | None:
        """See `CallStore`. Without s3:ListBucket, S3 denies a missing payload as one that may not be read."""
        with _wrap_errors():
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=self._key(call_id, direction))
            except self._client.exceptions.NoSuchKey:
                return None
            payload: bytes = found["Body"].read(max_bytes + 1)
        return _check_size(payload, call_id, max_bytes)

    def delete(self, call_id: str) -> None:
        """See `CallStore`."""
        with _wrap_errors():
            for direction in ("in", "out"):
                self._client.delete_object(Bucket=self._bucket, Key=self._key(call_id, direction))

    def close(self) -> None:
        """See `CallStore`."""

    def _key(self, call_id: str, direction: str) -> str:
        return f"{self._prefix}/{call_id}/{direction}"

    @property
    def _client(self) -> Any:
        if self._given_client is None:
            import boto3

            self._given_client = boto3.client("s3")
        return self._given_client


def _check_size(payload: bytes, call_id: str, max_bytes: int) -> bytes:
    if len(payload) > max_bytes:
        raise UndecodableMessage(
            f"the payload of the call {call_id} has more than max_bytes ({max_bytes}), which no caller and no "
            "container writes; check who can write to where calls are kept"
        )
    return payload


def _error_code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _wrap_errors() -> Iterator[None]:
    import botocore.exceptions
    import redis.exceptions

    try:
        yield
    except redis.exceptions.ResponseError as error:
        right = find_missing_right(error, "ledger", "the payloads of calls, {NAMESPACE}:c:*")
        raise right or LedgerUnavailable(f"the payload of a call: {error_text(error)}") from None
    except (redis.exceptions.RedisError, OSError) as error:
        raise LedgerUnavailable(f"the payload of a call: {error_text(error)}") from None
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        if isinstance(error, botocore.exceptions.ClientError) and _error_code(error) == "AccessDenied":
            raise MissingRight(_DENIED.format(operation=error.operation_name)) from None
        raise LedgerUnavailable(f"the payload of a call in S3: {error_text(error)}") from None
