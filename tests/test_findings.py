"""What follows from findings."""

from __future__ import annotations

import pytest

from ecs_queue.errors import UnusableServer
from ecs_queue.findings import Reporter, Severity, require_usable

_LEDGER = Reporter("ledger")


def test_only_what_prevents_launches_makes_a_server_unusable() -> None:
    require_usable([_LEDGER.ok("a", "good"), _LEDGER.info("b", "not known"), _LEDGER.error("c", "bad", "mend it")])


def test_every_sentence_that_prevents_launches_is_said_with_its_advice() -> None:
    findings = [_LEDGER.unusable("a", "no replica", "connect one"), _LEDGER.unusable("b", "read only", "use another")]
    with pytest.raises(UnusableServer) as raised:
        require_usable(findings)
    assert str(raised.value).splitlines() == ["ledger: no replica; connect one", "ledger: read only; use another"]
    assert {finding.severity for finding in findings} == {Severity.ERROR}
