"""Who may write a message, and who may read its secrets: signatures and sealed parts, with keys handed in.

A signed text is a JSON object whose last member is its signature:

    {"kind":"request", ... ,"signature":"KEY-ID:HEX"}

HEX is HMAC-SHA256 over a few lines that say what the text is and where it belongs (its *scope*), followed by the bytes
of the text up to the comma before `"signature"`. Those lines are `ecs-queue KIND v1`, the namespace, and for some
kinds more; each ends with a line feed. So a signature is good for one kind, one namespace, one place alone, and
no JSON has to be brought into a canonical form. docs/messages.md has it with examples.

A sealed part is encrypted text; within the encryption stand the same lines of its scope, so that it cannot be moved
to another request. Without a key signatures are neither made nor asked for, and what is sealed stays closed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from ecs_queue.errors import SealedMessage, UnverifiedMessage

_SIGNATURE_TRAILER = re.compile(rb',"signature":"([A-Za-z0-9_.-]{1,32}):([0-9a-f]{64})"\}\s*\Z')
#: No trailer is longer; looking for it takes no more than the end of a text.
_MAX_TRAILER_BYTES = 160

#: What a text is (`request`, `result`, `args`), and what it belongs to; the namespace is added here.
Scope = tuple[str, ...]


class SigningKey(msgspec.Struct, frozen=True):
    """A secret that producers and workers share, and the name by which a signature says which one made it."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret."""
        return f"SigningKey(id={self.id!r})"


class Cipher(Protocol):
    """Authenticated encryption with one or several keys."""

    def encrypt(self, text: bytes) -> str:
        """`text` under the first key; two calls give different answers."""
        ...

    def decrypt(self, token: str) -> bytes | None:
        """The text, whichever key made the token; None when none of them did."""
        ...


class Keyring:
    """The keys of one namespace. The first signing key signs, all verify. Immutable; made from the configuration."""

    __slots__ = ("_by_id", "_cipher", "_namespace", "_signer")

    def __init__(self, namespace: str = "", signing: Sequence[SigningKey] = (), cipher: Cipher | None = None) -> None:
        self._namespace = namespace
        self._signer = signing[0] if signing else None
        self._by_id = {key.id: key for key in signing}
        self._cipher = cipher

    def __repr__(self) -> str:
        """Names of keys, no key."""
        return (
            f"Keyring(namespace={self._namespace!r}, signing={list(self._by_id)}, encrypts={self.has_encryption_keys})"
        )

    @property
    def namespace(self) -> str:
        """Whose keys they are; part of everything that is signed."""
        return self._namespace

    @property
    def has_signing_keys(self) -> bool:
        """Whether there is a signing key: then what is not signed is not believed."""
        return self._signer is not None

    @property
    def has_encryption_keys(self) -> bool:
        """Whether there is an encryption key: then secrets leave this process sealed."""
        return self._cipher is not None

    @property
    def is_empty(self) -> bool:
        """Whether it has no key at all."""
        return not (self.has_signing_keys or self.has_encryption_keys)

    def without_signatures(self) -> Keyring:
        """One that opens what is sealed and neither signs nor verifies: for what was written down, not sent."""
        return Keyring(self._namespace, (), self._cipher)

    def sign(self, text: bytes, scope: Scope) -> bytes:
        """The JSON object `text` with its signature as the last member; as it is without a key."""
        if self._signer is None:
            return text
        signed = text[:-1]
        mac = self._mac(self._signer, signed, scope)
        return b'%s,"signature":"%s:%s"}' % (signed, self._signer.id.encode(), mac.encode())

    def verify(self, text: bytes, scope: Scope) -> None:
        """UnverifiedMessage, saying why, unless a key of ours signed `text` for this scope. Without a key: nothing."""
        if self._signer is None:
            return
        start = max(0, len(text) - _MAX_TRAILER_BYTES)
        trailer = _SIGNATURE_TRAILER.search(text, start)
        if trailer is None:
            raise UnverifiedMessage(
                "it is not signed, and signing_keys are set here: sign it with one of them, or give its producer a key"
            )
        name = trailer[1].decode()
        key = self._by_id.get(name)
        if key is None:
            raise UnverifiedMessage(
                f"it is signed with the key {name!r}, which is not known here: add the key to signing_keys, or submit "
                "it again with one of them"
            )
        if not hmac.compare_digest(self._mac(key, text[: trailer.start()], scope).encode(), trailer[2]):
            raise UnverifiedMessage(
                f"its signature (key {name!r}) is wrong: it was changed on its way, was made for another namespace or "
                "request, or the keys differ; look who else can write to the server"
            )

    def seal(self, secret: bytes, scope: Scope) -> str:
        """`secret` encrypted for this scope. Only with an encryption key."""
        assert self._cipher is not None, "nothing is sealed without an encryption key"
        return self._cipher.encrypt(self._scope_header(scope) + secret)

    def unseal(self, token: str, scope: Scope) -> bytes:
        """What was sealed for this scope. SealedMessage: no key here opens it. UnverifiedMessage: it is of another."""
        if self._cipher is None:
            raise SealedMessage("it is encrypted, and no encryption_keys are set here: set those of its producer")
        secret = self._cipher.decrypt(token)
        if secret is None:
            raise SealedMessage(
                "it is encrypted, and none of the encryption_keys here opens it: add the key of its producer, or "
                "submit it again"
            )
        head = self._scope_header(scope)
        if not secret.startswith(head):
            raise UnverifiedMessage("its sealed part was made for another request; look who can write to the server")
        return secret[len(head) :]

    def _scope_header(self, scope: Scope) -> bytes:
        kind, *place = scope
        return "\n".join((f"ecs-queue {kind} v1", self._namespace, *place, "")).encode()

    def _mac(self, key: SigningKey, signed: bytes, scope: Scope) -> str:
        return hmac.digest(key.secret, self._scope_header(scope) + signed, "sha256").hex()


#: Neither signs nor opens anything: how a message reads to whoever has no key.
NO_KEYS = Keyring()
