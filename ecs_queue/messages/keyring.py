"""Signatures and sealed parts of messages: the keys decide who can write a message and who can read its secrets.

A signed text is a JSON object whose last member is its signature:

    {"kind":"request", ... ,"signature":"KEY-ID:HEX"}

HEX is HMAC-SHA256 over a few lines that say what the text is and what it belongs to (its *scope*), followed by the
bytes of the text up to the comma before `"signature"`. The lines are `ecs-queue KIND v1`, the namespace, and more for
some kinds; each ends with a line feed. So a signature is valid for one kind, one namespace and one place only, and no
JSON needs a canonical form. docs/messages.md has examples.

A sealed part is encrypted text that begins with the same lines, so that it cannot be moved to another request. Without
keys no signature is made or verified, and no sealed part can be opened.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from ecs_queue.errors import SealedMessage, UnverifiedMessage

_SIGNATURE_TRAILER = re.compile(rb',"signature":"([A-Za-z0-9_.-]{1,32}:[0-9a-f]{64})"\}\s*\Z')
#: No trailer is longer, so only the end of a text is searched for it.
_MAX_TRAILER_BYTES = 160

#: What a text is (`request`, `result`, `args`, `journal`), and what it belongs to; Keyring adds the namespace.
Scope = tuple[str, ...]


class SigningKey(msgspec.Struct, frozen=True):
    """A secret that producers and workers share, and the id by which a signature names it."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        """Return a text without the secret."""
        return f"SigningKey(id={self.id!r})"


class Cipher(Protocol):
    """Authenticated encryption with one or several keys."""

    def encrypt(self, text: bytes) -> str:
        """Return `text` encrypted with the first key; two calls return different tokens."""
        ...

    def decrypt(self, token: str) -> bytes | None:
        """Return the text of a token that any of the keys made; else None."""
        ...


class Keyring:
    """The keys of one namespace, from the configuration. The first signing key signs, all verify. Immutable."""

    __slots__ = ("_by_id", "_cipher", "_signer", "namespace")

    def __init__(self, namespace: str = "", signing: Sequence[SigningKey] = (), cipher: Cipher | None = None) -> None:
        self.namespace = namespace
        self._signer = signing[0] if signing else None
        self._by_id = {key.id: key for key in signing}
        self._cipher = cipher

    def __repr__(self) -> str:
        """Return a text with the ids of the keys, without the keys."""
        return (
            f"Keyring(namespace={self.namespace!r}, signing={list(self._by_id)}, encrypts={self.has_encryption_keys})"
        )

    @property
    def has_signing_keys(self) -> bool:
        """Return whether there is a signing key: then unsigned messages are refused."""
        return self._signer is not None

    @property
    def has_encryption_keys(self) -> bool:
        """Return whether there is an encryption key: then secrets leave this process sealed."""
        return self._cipher is not None

    @property
    def is_empty(self) -> bool:
        """Return whether there is no key at all."""
        return not (self.has_signing_keys or self.has_encryption_keys)

    def without_signatures(self) -> Keyring:
        """Return a keyring that opens sealed parts but neither signs nor verifies: for recorded messages."""
        return Keyring(self.namespace, (), self._cipher)

    def for_namespace(self, namespace: str) -> Keyring:
        """Return the same keys for another namespace: for what was recorded there."""
        other = Keyring(namespace, (), self._cipher)
        other._signer, other._by_id = self._signer, self._by_id
        return other

    def sign(self, text: bytes, scope: Scope) -> bytes:
        """Return the JSON object `text` with its signature as the last member; unchanged without a key."""
        if self._signer is None:
            return text
        signed = text[:-1]
        return b'%s,"signature":"%s"}' % (signed, self.make_signature(signed, scope).encode())

    def verify(self, text: bytes, scope: Scope) -> None:
        """Raise UnverifiedMessage unless one of the keys signed `text` for this scope. Without keys, do nothing."""
        if self._signer is None:
            return
        start = max(0, len(text) - _MAX_TRAILER_BYTES)
        trailer = _SIGNATURE_TRAILER.search(text, start)
        if trailer is None:
            raise UnverifiedMessage(
                "it is not signed, and signing_keys are set here: sign it with one of them, or give its producer a key"
            )
        self.check_signature(text[: trailer.start()], trailer[1].decode(), scope)

    def make_signature(self, signed: bytes, scope: Scope) -> str:
        """Return the signature `KEY-ID:HEX` of these bytes for this scope; "" without a key."""
        return "" if self._signer is None else f"{self._signer.id}:{self._mac(self._signer, signed, scope)}"

    def check_signature(self, signed: bytes, signature: str, scope: Scope) -> None:
        """Raise UnverifiedMessage unless it is the signature of one of the keys for these bytes and this scope."""
        key_id, _, mac = signature.partition(":")
        key = self._by_id.get(key_id)
        if key is None:
            raise UnverifiedMessage(
                f"it is signed with the unknown key {key_id!r}: add the key to signing_keys, or submit it again with "
                "one of them"
            )
        if not hmac.compare_digest(self._mac(key, signed, scope).encode(), mac.encode()):
            raise UnverifiedMessage(
                f"its signature (key {key_id!r}) is wrong: the message was changed, was made for another namespace or "
                "request, or the keys differ; check who else can write to the server"
            )

    def seal(self, secret: bytes, scope: Scope) -> str:
        """Return `secret` encrypted for this scope. Needs an encryption key."""
        assert self._cipher is not None, "nothing is sealed without an encryption key"
        return self._cipher.encrypt(self._scope_header(scope) + secret)

    def unseal(self, token: str, scope: Scope) -> bytes:
        """Return what was sealed for this scope.

        Raises:
            SealedMessage: No key opens the token.
            UnverifiedMessage: It was sealed for another scope.
        """
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
            raise UnverifiedMessage("its sealed part was made for another request; check who can write to the server")
        return secret[len(head) :]

    def _scope_header(self, scope: Scope) -> bytes:
        kind, *place = scope
        return "\n".join((f"ecs-queue {kind} v1", self.namespace, *place, "")).encode()

    def _mac(self, key: SigningKey, signed: bytes, scope: Scope) -> str:
        return hmac.digest(key.secret, self._scope_header(scope) + signed, "sha256").hex()


#: A keyring without keys: it neither signs, verifies nor opens anything.
NO_KEYS = Keyring()
