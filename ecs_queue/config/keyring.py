"""The keyring that the configuration describes, and the keys of runners that are derived from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ecs_queue.errors import ConfigError
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.runs.runner_key import derive_runner_key

if TYPE_CHECKING:
    from ecs_queue.config import Config


def open_keyring(config: Config) -> Keyring:
    """Return the keyring of `config`.

    Raises:
        ConfigError: encryption_keys are set and `cryptography` is not installed.
    """
    cipher = FernetCipher(config.encryption_keys) if config.encryption_keys else None
    return Keyring(config.namespace, config.signing_keys or (), cipher)


def runner_keys(config: Config, queue: str) -> list[str]:
    """Return the keys that launchers and runners of this queue share; [] without signing and encryption keys.

    The first one signs and encrypts, as the first signing and encryption keys do. A key of the configuration that is
    replaced is kept until no runner has the one that was derived from it.
    """
    signing = [key.secret for key in config.signing_keys or ()] or [b""]
    encryption = [key.encode() for key in config.encryption_keys or ()] or [b""]
    pairs = [(first, second) for first in signing for second in encryption if first or second]
    return [derive_runner_key(config.namespace, canonical_queue_name(queue), *pair) for pair in pairs]


class FernetCipher:
    """cryptography's MultiFernet: the first key encrypts, all decrypt."""

    def __init__(self, keys: Sequence[str]) -> None:
        fernet: Any = _import_fernet()
        self._fernet = fernet.MultiFernet([fernet.Fernet(key) for key in keys])
        self._invalid_token_error: type[Exception] = fernet.InvalidToken

    def __repr__(self) -> str:
        """Leave out the keys."""
        return "FernetCipher()"

    def encrypt(self, text: bytes) -> str:
        """See `Cipher.encrypt`."""
        return str(self._fernet.encrypt(text).decode())

    def decrypt(self, token: str) -> bytes | None:
        """See `Cipher.decrypt`."""
        try:
            return bytes(self._fernet.decrypt(token.encode()))
        except (self._invalid_token_error, UnicodeEncodeError):
            return None


def _import_fernet() -> Any:
    try:
        from cryptography import fernet
    except ImportError:
        raise ConfigError(
            "encryption_keys: expected the package cryptography to be installed, found that it is not; "
            "pip install 'ecs-queue[encryption]', or remove the key"
        ) from None
    return fernet
