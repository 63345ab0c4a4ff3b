"""A representation without payloads, for every struct and dataclass that holds one: logs and tracebacks may show it."""

from __future__ import annotations

import dataclasses
from typing import Any

#: Fields that hold a payload, a text that may be a secret, or what may contain one. The names mean the same in the
#: whole package; tests/security/test_reprs.py puts a secret into every field that it does not know as open.
PAYLOAD_FIELDS = frozenset(
    {
        *("command", "cmd", "executor_config", "config", "environment", "variables", "args", "run_task", "sealed"),
        *("body", "detail", "data", "task", "tasks", "current", "previous", "recorded", "replayed", "workload"),
        *("payload", "overrides", "config_values", "worker_args", "text", "value", "access_key_id", "session"),
    }
)


class PayloadRepr:
    """A base that shows fields as a dataclass does, and those of PAYLOAD_FIELDS, if they hold anything, as `...`.

    A dataclass needs `repr=False`, else it would make its own.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Return `Name(field=value, command=...)`."""
        shown = ", ".join(f"{name}={self._shown(name)}" for name in self._field_names())
        return f"{type(self).__name__}({shown})"

    def _field_names(self) -> tuple[str, ...]:
        names: tuple[str, ...] | None = getattr(self, "__struct_fields__", None)
        return names or tuple(field.name for field in dataclasses.fields(self) if field.repr)  # type: ignore[arg-type]

    def _shown(self, name: str) -> str:
        value: Any = getattr(self, name)
        # EcsTaskInfo.config and the like hold payloads; a Config has a safe representation of its own.
        is_hidden = name in PAYLOAD_FIELDS and bool(value) and not isinstance(value, PayloadRepr)
        return "..." if is_hidden else repr(value)
