"""Signatures are good for one text in one place, whichever of our keys made them; sealed parts for one request."""

from __future__ import annotations

import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.errors import SealedMessage, UndecodableMessage, UnverifiedMessage
from ecs_queue.messages.keyring import NO_KEYS, Keyring, SigningKey

OLD = SigningKey("old", b"o" * 32)
NEW = SigningKey("new", b"n" * 32)
TEXT = b'{"id":"a"}'
SCOPE = ("request",)


class ReadableCipher(str):
    """A cipher that anybody can read: `PREFIX:hex`."""

    def encrypt(self, text: bytes) -> str:
        return f"{self}:{text.hex()}"

    def decrypt(self, token: str) -> bytes | None:
        return bytes.fromhex(token.partition(":")[2]) if token.startswith(f"{self}:") else None


def make_keyring(*keys: SigningKey, namespace: str = "ns") -> Keyring:
    return Keyring(namespace, keys)


def test_a_signed_text_is_the_same_json_with_its_signature_last() -> None:
    signed = make_keyring(NEW).sign(TEXT, SCOPE)

    mac = hmac.new(b"n" * 32, b'ecs-queue request v1\nns\n{"id":"a"', "sha256").hexdigest()
    assert signed == b'{"id":"a","signature":"new:%s"}' % mac.encode()
    assert json.loads(signed) == {"id": "a", "signature": f"new:{mac}"}
    make_keyring(NEW).verify(signed, SCOPE)
    make_keyring(NEW).verify(signed + b" \r\n", SCOPE)


def test_keys_are_rotated_without_a_moment_in_which_a_signature_is_not_good() -> None:
    before, during, after = make_keyring(OLD), make_keyring(NEW, OLD), make_keyring(NEW)
    both_know_both = make_keyring(OLD, NEW)

    both_know_both.verify(before.sign(TEXT, SCOPE), SCOPE)
    both_know_both.verify(during.sign(TEXT, SCOPE), SCOPE)
    during.verify(both_know_both.sign(TEXT, SCOPE), SCOPE)
    after.verify(during.sign(TEXT, SCOPE), SCOPE)
    with pytest.raises(UnverifiedMessage, match="the unknown key 'old'"):
        after.verify(before.sign(TEXT, SCOPE), SCOPE)


def test_the_first_key_signs() -> None:
    assert b'"new:' in make_keyring(NEW, OLD).sign(TEXT, SCOPE)


@pytest.mark.parametrize("text", [TEXT, b"", b"}", b'{"signature":"new:00"}', b'{"id":"a","signature":"new:"}'])
def test_what_is_not_signed_is_not_believed(text: bytes) -> None:
    with pytest.raises(UnverifiedMessage, match="not signed"):
        make_keyring(NEW).verify(text, SCOPE)


@pytest.mark.parametrize("scope", [("result",), ("request", ""), ("request", "a"), ("args",)])
def test_a_signature_is_good_for_its_scope_alone(scope: tuple[str, ...]) -> None:
    with pytest.raises(UnverifiedMessage, match="is wrong"):
        make_keyring(NEW).verify(make_keyring(NEW).sign(TEXT, SCOPE), scope)


def test_a_signature_is_good_for_its_namespace_alone() -> None:
    with pytest.raises(UnverifiedMessage, match="another namespace"):
        make_keyring(NEW, namespace="other").verify(make_keyring(NEW).sign(TEXT, SCOPE), SCOPE)


def test_a_key_of_the_same_name_with_another_secret_is_another_key() -> None:
    with pytest.raises(UnverifiedMessage, match="is wrong"):
        make_keyring(SigningKey("new", b"x" * 32)).verify(make_keyring(NEW).sign(TEXT, SCOPE), SCOPE)


@given(st.integers(0, 500), st.binary(min_size=1, max_size=3), st.integers(0, 3))
def test_no_changed_text_verifies(at: int, put: bytes, drop: int) -> None:
    signed = make_keyring(NEW, OLD).sign(b'{"id":"a","command":["rm","-r"]}', SCOPE)
    at %= len(signed) + 1
    changed = signed[:at] + put + signed[at + drop :]
    if changed.rstrip() == signed:
        return
    with pytest.raises(UnverifiedMessage):
        make_keyring(NEW, OLD).verify(changed, SCOPE)


def test_members_that_come_after_the_signature_are_not_smuggled_in() -> None:
    signed = make_keyring(NEW).sign(TEXT, SCOPE)
    with pytest.raises(UnverifiedMessage):
        make_keyring(NEW).verify(signed[:-1] + b',"command":["evil"]}', SCOPE)


def test_without_keys_nothing_is_signed_and_nothing_is_asked_for() -> None:
    assert NO_KEYS.sign(TEXT, SCOPE) == TEXT
    NO_KEYS.verify(TEXT, SCOPE)
    NO_KEYS.verify(make_keyring(NEW).sign(TEXT, SCOPE), SCOPE)
    assert NO_KEYS.is_empty
    assert not make_keyring(NEW).is_empty


def test_what_is_sealed_opens_for_its_scope_alone() -> None:
    keyring = Keyring("ns", (), ReadableCipher("k"))
    token = keyring.seal(b"secret", ("request", "a", "default"))

    assert keyring.unseal(token, ("request", "a", "default")) == b"secret"
    for other, scope in (
        (keyring, ("request", "b", "default")),
        (keyring, ("request", "a", "gpu")),
        (Keyring("other", (), ReadableCipher("k")), ("request", "a", "default")),
    ):
        with pytest.raises(UnverifiedMessage, match="another request"):
            other.unseal(token, scope)


def test_what_no_key_opens_says_what_to_do() -> None:
    token = Keyring("ns", (), ReadableCipher("k")).seal(b"secret", SCOPE)

    with pytest.raises(SealedMessage, match="no encryption_keys are set here"):
        NO_KEYS.unseal(token, SCOPE)
    with pytest.raises(SealedMessage, match="none of the encryption_keys here opens it"):
        Keyring("ns", (), ReadableCipher("other")).unseal(token, SCOPE)
    assert issubclass(SealedMessage, UndecodableMessage)
    assert issubclass(UnverifiedMessage, UndecodableMessage)


def test_no_representation_shows_a_key() -> None:
    key = SigningKey("k1", b"hunter2" * 8)
    assert "hunter2" not in f"{key!r} {key} {Keyring('ns', [key])!r}"
