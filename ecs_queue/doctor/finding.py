"""What an examination finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """How bad it is. `NOTE`: it could not be found out, or is only good to know."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `subject`: a queue, a server, or "" for the whole installation.

    `advice` says what to do; every finding that is worse than OK and NOTE has one.
    """

    check: str
    subject: str
    severity: Severity
    text: str
    advice: str = ""


class Reporter:
    """Makes findings of one subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def ok(self, check: str, text: str) -> Finding:
        """As it should be."""
        return Finding(check=check, subject=self.subject, severity=Severity.OK, text=text)

    def info(self, check: str, text: str, advice: str = "") -> Finding:
        """Not found out, or good to know."""
        return Finding(check=check, subject=self.subject, severity=Severity.INFO, text=text, advice=advice)

    def warning(self, check: str, text: str, advice: str) -> Finding:
        """It works, and will not always."""
        return Finding(check=check, subject=self.subject, severity=Severity.WARNING, text=text, advice=advice)

    def error(self, check: str, text: str, advice: str) -> Finding:
        """It cannot work like this."""
        return Finding(check=check, subject=self.subject, severity=Severity.ERROR, text=text, advice=advice)


Examination = Callable[[], Iterator[Finding]]
