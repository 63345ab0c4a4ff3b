"""Where payloads of calls are kept."""

from __future__ import annotations

import io
from typing import Any

import botocore.exceptions
import pytest
import redis

from ecs_queue.calls.store import CallStore, MemoryCallStore, RedisCallStore, S3CallStore
from ecs_queue.errors import LedgerUnavailable, MissingRight, UndecodableMessage, UsageError
from ecs_queue.local.redis_server import RedisServer


class FakeS3:
    """The calls of S3 that the store makes."""

    class exceptions:  # noqa: N801 - as boto3 has it
        class NoSuchKey(Exception):  # noqa: N818 - as boto3 has it
            pass

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803
        self.objects[Bucket, Key] = Body

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        if (Bucket, Key) not in self.objects:
            raise self.exceptions.NoSuchKey
        return {"Body": io.BytesIO(self.objects[Bucket, Key])}

    def delete_object(self, Bucket: str, Key: str) -> None:  # noqa: N803
        self.objects.pop((Bucket, Key), None)


def _check(store: CallStore) -> None:
    assert store.get("a", "in", 5) is None
    store.put("a", "in", b"\x00call", 60.0)
    store.put("a", "out", b"value", 60.0)
    store.put("b", "in", b"other", 60.0)
    assert (store.get("a", "in", 5), store.get("a", "out", 5), store.get("b", "out", 5)) == (
        b"\x00call",
        b"value",
        None,
    )
    with pytest.raises(UndecodableMessage, match=r"more than max_bytes \(4\)"):
        store.get("a", "in", 4)
    store.delete("a")
    assert (store.get("a", "in", 5), store.get("a", "out", 5), store.get("b", "in", 5)) == (None, None, b"other")
    store.close()


def test_memory_and_s3_keep_payloads_until_they_are_dropped() -> None:
    s3 = FakeS3()
    _check(MemoryCallStore())
    _check(S3CallStore("s3://bucket/some/prefix/", s3))
    assert set(s3.objects) == {("bucket", "some/prefix/b/in")}


def test_a_server_keeps_payloads_for_a_while(redis_server: RedisServer) -> None:
    _check(RedisCallStore(redis_server.url, "calls"))
    client: Any = redis.Redis.from_url(redis_server.url)
    assert 0 < client.ttl("{calls}:c:in:b") <= 60
    client.close()


def test_a_server_that_cannot_be_reached_is_an_outage() -> None:
    store = RedisCallStore("redis://127.0.0.1:1/0", "calls")
    with pytest.raises(LedgerUnavailable):
        store.get("a", "in", 5)


def test_s3_reads_no_more_than_is_accepted() -> None:
    s3 = FakeS3()
    read: list[int] = []

    class Body:
        def read(self, size: int) -> bytes:
            read.append(size)
            return b"x" * size

    s3.get_object = lambda Bucket, Key: {"Body": Body()}  # type: ignore[method-assign] # noqa: N803
    with pytest.raises(UndecodableMessage):
        S3CallStore("s3://bucket", s3).get("a", "out", 10)
    assert read == [11]


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        ("AccessDenied", MissingRight, r"denies GetObject.*or the payload is missing and s3:ListBucket is not granted"),
        ("SlowDown", LedgerUnavailable, "SlowDown"),
    ],
)
def test_a_denial_of_s3_is_a_missing_right_and_no_outage(code: str, kind: type[Exception], sentence: str) -> None:
    s3 = FakeS3()

    def deny(Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        raise botocore.exceptions.ClientError({"Error": {"Code": code, "Message": code}}, "GetObject")

    s3.get_object = deny  # type: ignore[method-assign]
    with pytest.raises(kind, match=sentence):
        S3CallStore("s3://bucket", s3).get("a", "out", 10)


@pytest.mark.parametrize("place", ["bucket/prefix", "s3://", "https://bucket"])
def test_a_place_that_is_not_in_s3_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match="expected a place such as s3://bucket/prefix"):
        S3CallStore(place)
