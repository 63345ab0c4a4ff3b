"""The keyring of a configuration."""

from __future__ import annotations

import sys

import pytest
from cryptography.fernet import Fernet

from ecs_queue.config import load_config
from ecs_queue.config.keyring import FernetCipher, open_keyring, runner_keys
from ecs_queue.errors import ConfigError, SealedMessage
from ecs_queue.messages.keyring import Keyring
from ecs_queue.runs.runner_key import RunnerKeys

K1, K2 = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SCOPE = ("request", "a", "default")


def keyring(**keys: str) -> Keyring:
    return open_keyring(load_config(environ={}, overrides=keys))


def test_without_keys_there_are_none() -> None:
    assert keyring().is_empty
    assert keyring(signing_keys="", encryption_keys="").is_empty


def test_all_keys_that_are_set_are_used() -> None:
    found = keyring(signing_keys=f"k2:{'b' * 32}, k1:{'a' * 32}", encryption_keys=K1, namespace="here")

    assert (found.has_signing_keys, found.has_encryption_keys, found.namespace) == (True, True, "here")
    assert b'"k2:' in found.sign(b'{"a":1}', SCOPE)


def test_encryption_keys_are_rotated() -> None:
    old, both, new = keyring(encryption_keys=K1), keyring(encryption_keys=f"{K2},{K1}"), keyring(encryption_keys=K2)

    assert both.unseal(old.seal(b"secret", SCOPE), SCOPE) == b"secret"
    assert new.unseal(both.seal(b"secret", SCOPE), SCOPE) == b"secret"
    with pytest.raises(SealedMessage):
        new.unseal(old.seal(b"secret", SCOPE), SCOPE)


@pytest.mark.parametrize("token", ["", "gAAAA", "no token", "ü", "A" * 500])
def test_text_that_is_no_token_is_decrypted_by_no_key(token: str) -> None:
    assert FernetCipher([K1]).decrypt(token) is None


def test_a_key_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(ConfigError, match=r"pip install 'ecs-queue\[encryption\]'"):
        keyring(encryption_keys=K1)
    assert keyring(signing_keys=f"k:{'a' * 32}").has_signing_keys


def test_runners_have_a_key_of_each_pair_of_keys_for_their_queue_alone() -> None:
    def keys(queue: str = "etl", **values: str) -> list[str]:
        return runner_keys(load_config(environ={}, overrides=values), queue)

    signing, both = f"k2:{'b' * 32},k1:{'a' * 32}", {"signing_keys": f"k1:{'a' * 32}", "encryption_keys": K1}
    assert keys() == []
    assert len(set(keys(signing_keys=signing))) == 2
    assert keys(signing_keys=signing)[1:] == keys(signing_keys=f"k1:{'a' * 32}")
    assert (
        len({*keys(**both), *keys("other", **both), *keys(namespace="other", **both), *keys(encryption_keys=K1)}) == 4
    )
    assert keys("High.Mem", **both) == keys("high_mem", **both), "one queue, in every spelling of its name"
    assert RunnerKeys(keys(signing_keys=signing, encryption_keys=f"{K2},{K1}")).is_empty is False
