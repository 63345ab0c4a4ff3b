"""The key that the launchers and the runners of one queue share: it seals commands and signs how they ended.

It is derived (HKDF, RFC 5869, with SHA-256) from the namespace's signing and encryption keys and the queue, so a runner
can neither read nor forge what belongs to another queue. `ecs-queue runner-key QUEUE` prints it for the operator, who
gives it to the task definition as the secret `ECS_QUEUE_RUNNER_KEY`. Without any keys, commands and ends are unsigned.

A payload is the text `v1:KEY-ID:HEX:BODY`. BODY is JSON, or, where the namespace has encryption keys, a Fernet token of
it. HEX is HMAC-SHA256 over lines that name what it belongs to, and BODY; without keys KEY-ID and HEX are empty.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ecs_queue.errors import ConfigError, SealedMessage, UndecodableMessage, UnverifiedMessage
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.runs import RunEnd

_VERSION = "v1"
_KEY_BYTES = 32


class RunnerCommand(PayloadRepr, msgspec.Struct, frozen=True):
    """What a runner starts: the command, and its environment beyond that of the container."""

    command: list[str]
    environment: dict[str, str] = {}


class Assignment(msgspec.Struct, frozen=True):
    """What a payload belongs to: the launch of a request."""

    namespace: str
    queue: str
    id: str
    nonce: str
    launch: int


def derive_runner_key(namespace: str, queue: str, signing_key: bytes, encryption_key: bytes) -> str:
    """Return a queue's key as text, from a signing and an encryption key of the namespace; one of them may be b""."""
    material = hmac.digest(
        b"ecs-queue runner v1", _lines(str(len(signing_key))) + signing_key + encryption_key, "sha256"
    )
    return base64.urlsafe_b64encode(_expand(material, _lines(namespace, queue))).decode()


class RunnerKeys:
    """The keys of one queue, as text: the first one signs and seals, all of them verify and open. Immutable.

    Args:
        keys: As `derive_runner_key` returns them; none: nothing is signed, and nothing that is signed can be opened.

    Raises:
        ConfigError: A key is none.
    """

    __slots__ = ("_by_id", "_first")

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._by_id = {_key_id(key): key for key in map(_decode_key, keys)}
        self._first = next(iter(self._by_id), "")

    def __repr__(self) -> str:
        """Return a text with the ids of the keys, without the keys."""
        return f"RunnerKeys({list(self._by_id)})"

    @property
    def is_empty(self) -> bool:
        """Return whether there is no key."""
        return not self._by_id

    @property
    def first_id(self) -> str:
        """Return the id of the key that signs and seals; "" without keys."""
        return self._first

    def id_in(self, payload: str) -> str:
        """Return the id of the key that a payload was made with; that of the first key if it is none of these."""
        key_id = payload.split(":", 2)[1] if payload.count(":") > 1 else ""
        return key_id if key_id in self._by_id else self._first

    def seal_payload(self, command: RunnerCommand, assignment: Assignment, *, encrypts: bool) -> str:
        """Return the payload with the command, signed if there is a key, and encrypted if that is asked for."""
        body = msgspec.json.encode(command).decode()
        if not self._first:
            return f"{_VERSION}:::{body}"
        key = self._by_id[self._first]
        if encrypts:
            body = _fernet(key).encrypt(body.encode()).decode()
        return f"{_VERSION}:{self._first}:{_payload_mac(key, assignment, body)}:{body}"

    def open_payload(self, payload: str, assignment: Assignment) -> RunnerCommand:
        """Return the command in a payload.

        Raises:
            SealedMessage: None of the keys is the one that it was made with.
            UnverifiedMessage: It is unsigned, was changed, or was made for another request.
            UndecodableMessage: It is no payload, or of another version.
        """
        version, _, rest = payload.partition(":")
        if version != _VERSION or rest.count(":") < 2:
            raise UndecodableMessage(f"the payload is not of version {_VERSION}: update ecs-queue in the image")
        key_id, mac, body = rest.split(":", 2)
        if not key_id and not self.is_empty:
            raise UnverifiedMessage("the payload is unsigned; check who can write to the server")
        if key_id:
            body = self._open_signed(key_id, mac, body, assignment)
        try:
            return msgspec.json.decode(body, type=RunnerCommand)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise UndecodableMessage("the payload holds no command") from None

    def _open_signed(self, key_id: str, mac: str, body: str, assignment: Assignment) -> str:
        key = self._by_id.get(key_id)
        if key is None:
            raise SealedMessage(
                f"the payload is of the key {key_id}, which this runner has not: set ECS_QUEUE_RUNNER_KEY to what "
                f"`ecs-queue runner-key {assignment.queue}` prints"
            )
        if not hmac.compare_digest(mac.encode(), _payload_mac(key, assignment, body).encode()):
            raise UnverifiedMessage(
                "the payload was changed or made for another request; check who can write to the server"
            )
        if body.startswith("{"):
            return body
        return str(_fernet(key).decrypt(body.encode()).decode())

    def make_mac(self, place: Sequence[str], body: bytes) -> str:
        """Return `KEY-ID:HEX` for what belongs to this place; "" without keys."""
        return f"{self._first}:{_place_mac(self._by_id[self._first], place, body)}" if self._first else ""

    def check_mac(self, place: Sequence[str], body: bytes, mac: str) -> None:
        """Verify what `make_mac` returned. Without keys nothing is checked.

        Raises:
            SealedMessage: None of the keys is the one that it was made with.
            UnverifiedMessage: It is unsigned, was changed, or was made for another place.
        """
        if self.is_empty:
            return
        key_id, _, digits = mac.partition(":")
        if not key_id:
            raise UnverifiedMessage("the payload is unsigned; check who can write to the server")
        key = self._by_id.get(key_id)
        if key is None:
            raise SealedMessage(f"the payload is of the key {key_id}, which is none of the queue's keys here")
        if not hmac.compare_digest(digits.encode(), _place_mac(key, place, body).encode()):
            raise UnverifiedMessage(
                "the payload was changed or made for another call; check who can write to the server"
            )

    def encrypt(self, body: bytes) -> bytes:
        """Return the body encrypted with the first key."""
        if self.is_empty:
            raise SealedMessage("nothing is encrypted without a key")
        return bytes(_fernet(self._by_id[self._first]).encrypt(body))

    def decrypt(self, body: bytes) -> bytes:
        """Return what any of the keys encrypted; SealedMessage when none did."""
        for key in self._by_id.values():
            fernet = _fernet(key)
            with suppress(_invalid_token()):
                return bytes(fernet.decrypt(body))
        raise SealedMessage("the payload is encrypted, and none of the queue's keys here opens it")

    def sign_end(self, namespace: str, queue: str, name: str, end: RunEnd, key_id: str = "") -> RunEnd:
        """Return the end with its MAC; as it is without keys.

        Args:
            namespace: The namespace.
            queue: Of the runner.
            name: The runner's.
            end: Of its command.
            key_id: As `id_in` returns it for the command's payload: a key that the launcher has. "": the first one's.
        """
        key_id = key_id or self._first
        if not key_id:
            return end
        mac = _end_mac(self._by_id[key_id], namespace, queue, name, end)
        return msgspec.structs.replace(end, mac=f"{key_id}:{mac}")

    def verify_end(self, namespace: str, queue: str, name: str, end: RunEnd) -> bool:
        """Return whether a runner of this queue has reported this end. Without keys every end counts."""
        if self.is_empty:
            return True
        key_id, _, mac = end.mac.partition(":")
        key = self._by_id.get(key_id)
        return key is not None and hmac.compare_digest(
            mac.encode(), _end_mac(key, namespace, queue, name, end).encode()
        )


def _decode_key(text: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text.strip())
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError("ECS_QUEUE_RUNNER_KEY: expected what `ecs-queue runner-key QUEUE` prints, found another text")
    return key


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"ecs-queue runner key id\n" + key).hexdigest()[:8]


def _expand(key: bytes, info: bytes) -> bytes:
    """HKDF's second step, for one block of output."""
    return hmac.digest(key, info + b"\x01", "sha256")


def _payload_mac(key: bytes, assignment: Assignment, body: str) -> str:
    place = (str(value) for value in msgspec.structs.astuple(assignment))
    text = _lines("ecs-queue run v1", *place) + body.encode()
    return hmac.digest(_expand(key, b"payload"), text, "sha256").hex()


def _end_mac(key: bytes, namespace: str, queue: str, name: str, end: RunEnd) -> str:
    how = (str(end.turn), str(end.exit_code), "cancelled" if end.cancelled else "")
    return hmac.digest(_expand(key, b"end"), _lines("ecs-queue end v1", namespace, queue, name, *how), "sha256").hex()


def _place_mac(key: bytes, place: Sequence[str], body: bytes) -> str:
    return hmac.digest(_expand(key, b"place"), _lines("ecs-queue place v1", *place) + body, "sha256").hex()


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _invalid_token() -> type[Exception]:
    from cryptography.fernet import InvalidToken

    error: type[Exception] = InvalidToken
    return error


def _fernet(key: bytes) -> Any:
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise SealedMessage(
            "commands are encrypted, and the package cryptography is not installed: pip install 'ecs-queue[encryption]'"
        ) from None
    return Fernet(base64.urlsafe_b64encode(_expand(key, b"seal")))
