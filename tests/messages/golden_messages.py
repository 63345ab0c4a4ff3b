"""The messages that every version must decode."""

from __future__ import annotations

import base64
from pathlib import Path

from ecs_queue.config.keyring import FernetCipher
from ecs_queue.messages.keyring import Keyring, SigningKey

GOLDEN = Path(__file__).parent / "golden"
#: The keys of the golden files.
SECRET = b"golden-key-golden-key-golden-key-0001"
FERNET_KEY = base64.urlsafe_b64encode(b"golden-fernet-key-golden-fernet!").decode()
SIGNS = Keyring("ecs-queue", [SigningKey("2026-11", SECRET)])
SEALS = Keyring("ecs-queue", [], FernetCipher([FERNET_KEY]))
BOTH = Keyring("ecs-queue", [SigningKey("2026-11", SECRET)], FernetCipher([FERNET_KEY]))


def golden(name: str) -> bytes:
    """The bytes of one golden message."""
    return (GOLDEN / f"{name}.json").read_bytes()
