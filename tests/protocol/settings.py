"""The protocol's settings for tests: the defaults of the configuration, with changes."""

from __future__ import annotations

from typing import Any

import msgspec

from ecs_queue.config import load_config
from ecs_queue.protocol.settings import ProtocolSettings

DEFAULT_SETTINGS = ProtocolSettings.from_config(load_config(environ={}))


def make_settings(**changes: Any) -> ProtocolSettings:
    """Return the default settings with some of them changed."""
    return msgspec.structs.replace(DEFAULT_SETTINGS, **changes)
