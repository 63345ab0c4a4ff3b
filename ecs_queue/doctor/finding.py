"""What a check of the doctor finds."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """How bad a finding is. INFO: it could not be checked, or is good to know."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        check: The name of the check, such as "aws.cluster".
        subject: What was checked: a queue, a worker, "ledger", "broker", "installation" or "configuration".
        text: What was found.
        advice: How to correct it; never empty for a warning or an error.
    """

    check: str
    subject: str
    severity: Severity
    text: str
    advice: str = ""


class Reporter:
    """Makes findings about one subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def ok(self, check: str, text: str) -> Finding:
        """Return a finding that all is well."""
        return self._make(check, Severity.OK, text)

    def info(self, check: str, text: str, advice: str = "") -> Finding:
        """Return a finding about what could not be checked or is good to know."""
        return self._make(check, Severity.INFO, text, advice)

    def warning(self, check: str, text: str, advice: str) -> Finding:
        """Return a finding about what works, but not always."""
        return self._make(check, Severity.WARNING, text, advice)

    def error(self, check: str, text: str, advice: str) -> Finding:
        """Return a finding about what cannot work."""
        return self._make(check, Severity.ERROR, text, advice)

    def _make(self, check: str, severity: Severity, text: str, advice: str = "") -> Finding:
        return Finding(check=check, subject=self.subject, severity=severity, text=text, advice=advice)
