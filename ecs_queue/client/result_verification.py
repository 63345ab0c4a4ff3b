"""Verifies result messages against the ledger. No I/O.

A result message only names a request to look up; the result itself is read from the ledger's record. A forged or
misdirected message therefore has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from ecs_queue.errors import UndecodableMessage, UnverifiedMessage
from ecs_queue.messages.envelope import decode_result
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.protocol.record import Record

ResultKey = tuple[str, str]  # id, nonce


def decode_result_keys(bodies: Iterable[bytes], keyring: Keyring, log: logging.Logger) -> list[ResultKey]:
    """Return the (id, nonce) of each result message once, in order of arrival.

    Messages of other versions are skipped. With a signing key, unsigned messages are skipped with a warning.
    """
    keys: dict[ResultKey, None] = {}
    for body in bodies:
        try:
            result = decode_result(body, keyring)
            keys[result.id, result.nonce] = None
        except UnverifiedMessage as error:
            log.warning("Ignoring a result message, the ledger is read instead: %s", error)
        except UndecodableMessage:
            continue  # not published by a worker of this version
    return list(keys)


def iter_confirmed_results(
    keys: Sequence[ResultKey], records: Iterable[Record | None], owner: str, log: logging.Logger
) -> Iterator[TaskResult]:
    """Yield the results that the ledger's records of `keys` confirm: same submission, ended, and of this owner."""
    for (record_id, nonce), record in zip(keys, records, strict=True):
        if record is not None and record.nonce == nonce and record.is_terminal and record.owner == owner:
            yield build_result(record)
        else:
            log.warning(
                "Ignoring a result message for %s: the ledger does not confirm it; if it is a worker's, compare its "
                "ledger_url with the one here",
                record_id,
            )
