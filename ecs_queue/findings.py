"""What a check finds, with its level: one list for `worker`, `workers`, `doctor`, `submit` and the Airflow executor."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from ecs_queue.errors import UnusableServer


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
        prevents_launches: Nothing can be launched, or nothing submitted, before it is corrected.
    """

    check: str
    subject: str
    severity: Severity
    text: str
    advice: str = ""
    prevents_launches: bool = False

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        return f"{self.subject}: {self.reason}"

    @property
    def reason(self) -> str:
        """The finding in one line that leaves out the subject, for text that names it."""
        return f"{self.text}; {self.advice}" if self.advice else self.text


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

    def unusable(self, check: str, text: str, advice: str) -> Finding:
        """Return a finding that ends `worker` and `submit` at their start: they could do nothing."""
        return self._make(check, Severity.ERROR, text, advice, prevents_launches=True)

    def _make(
        self, check: str, severity: Severity, text: str, advice: str = "", *, prevents_launches: bool = False
    ) -> Finding:
        return Finding(
            check=check,
            subject=self.subject,
            severity=severity,
            text=text,
            advice=advice,
            prevents_launches=prevents_launches,
        )


def require_usable(findings: Iterable[Finding]) -> None:
    """Raise `UnusableServer` with the sentences of the findings that prevent launches, if there are any."""
    sentences = [finding.sentence for finding in findings if finding.prevents_launches]
    if sentences:
        raise UnusableServer("\n".join(sentences))
