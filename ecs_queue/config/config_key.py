"""What the configuration knows of one key: the file, the loader and the docs follow it."""

from __future__ import annotations

from dataclasses import dataclass

from ecs_queue.config.parsers import Parser


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key.

    Attributes:
        name: its name in a file.
        default: its default as text, as it would stand in a file; None if there is none.
        parse: converts text to the value.
        doc: what it means, for users.
        may_be_none: an empty value means None although there is a default.
    """

    name: str
    default: str | None
    parse: Parser
    doc: str
    may_be_none: bool = False

    @property
    def is_optional(self) -> bool:
        """Whether an empty value means None; otherwise it means the default."""
        return self.may_be_none or self.default is None
