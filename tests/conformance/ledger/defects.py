"""Ways in which a stored item can be broken, for each implementation of the ledger."""

from __future__ import annotations

from typing import Any

from ecs_queue.protocol.settings import MAX_FIELD_BYTES
from tests.conformance.ledger.harness import PREFIX, LedgerHarness

#: Defect -> what is stored in fields of the record's hash; None: the field is missing.
FIELD_DEFECTS: dict[str, dict[str, Any]] = {
    "state is missing": {"state": None},
    "queue is missing": {"queue": None},
    "nonce is missing": {"nonce": None},
    "a number is a word": {"launch": "many"},
    "a number is NaN": {"created_at": "nan"},
    "a number is infinite": {"accept_until": "inf"},
    "a number is huge": {"accept_until": "1e300"},
    "a number is negative": {"attempt": "-1"},
    "a number is hexadecimal": {"launch": "0x1"},
    "a number is empty": {"created_at": ""},
    "launches begin at 1": {"launch": "0"},
    "exit code is a word": {"exit_code": "one"},
    "a text is no UTF-8": {"relaunch": b"\xff\xfe"},
    "a text is a surrogate": {"relaunch": b"\xed\xa0\x80"},
    "a text is too long": {"reason": "x" * (MAX_FIELD_BYTES + 1)},
}
#: All of them, with those that no field shows.
DEFECTS = (*FIELD_DEFECTS, "the key holds a text", "the payload holds a text")
_IN_MEMORY: dict[Any, Any] = {None: "", "nan": float("nan"), "inf": float("inf"), "1e300": 1e300, "-1": -1, "0": 0}


def break_record(harness: LedgerHarness, defect: str, record_id: str = "job") -> None:
    """Break the record."""
    client: Any = harness.client
    key, payload_key = f"{PREFIX}r:{record_id}", f"{PREFIX}payload:{record_id}"
    if client is None:
        _break_in_memory(harness, defect, record_id)
    elif defect in FIELD_DEFECTS:
        for field, value in FIELD_DEFECTS[defect].items():
            client.hdel(key, field) if value is None else client.hset(key, field, value)
    else:
        broken_key = key if defect == "the key holds a text" else payload_key
        client.delete(broken_key)
        client.set(broken_key, "text")


def _break_in_memory(harness: LedgerHarness, defect: str, record_id: str) -> None:
    records: Any = harness.ledger._records  # type: ignore[attr-defined]
    if defect == "the key holds a text":
        records[record_id] = "text"
    elif defect == "the payload holds a text":
        records[record_id].request = 1
    else:
        for field, value in FIELD_DEFECTS[defect].items():
            setattr(records[record_id], field, _IN_MEMORY.get(value, value))


def remove_record(harness: LedgerHarness, record_id: str = "job") -> None:
    """Remove the record alone: its indexes still have its id."""
    client: Any = harness.client
    if client is None:
        del harness.ledger._records[record_id]  # type: ignore[attr-defined]
    else:
        client.delete(f"{PREFIX}r:{record_id}")


def break_entry(harness: LedgerHarness, hash_name: str, entry: str, value: Any) -> None:
    """Store `value` in place of an entry of one of the hashes that all workers share."""
    client: Any = harness.client
    if client is None:
        getattr(harness.ledger, f"_{hash_name}")[entry] = value
    else:
        client.hset(f"{PREFIX}{hash_name}", entry, value)
