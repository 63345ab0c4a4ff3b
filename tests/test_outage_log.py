"""Which failures get a line."""

from __future__ import annotations

from ecs_queue.outage_log import LINE_INTERVAL_SECONDS, SETTLE_SECONDS, OutageLine, OutageLog, OutagePhase
from tests.fake_clock import FakeClock


class Server:
    """Something that fails or works once a second."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.log = OutageLog(self.clock)
        self.lines: list[OutageLine] = []

    def fail(self, seconds: int = 1, kind: str = "") -> None:
        for _ in range(seconds):
            self._keep(self.log.record_failure("refused", kind))

    def work(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self._keep(self.log.record_success())

    def _keep(self, line: OutageLine | None) -> None:
        self.lines += [] if line is None else [line]
        self.clock.advance(1.0)

    @property
    def phases(self) -> list[OutagePhase]:
        return [line.phase for line in self.lines]


def test_an_outage_has_one_line_at_its_begin_one_a_minute_and_one_at_its_end() -> None:
    server = Server()
    server.work(100)
    server.fail(150)
    server.work(100)
    assert server.phases == [OutagePhase.BEGAN, OutagePhase.CONTINUES, OutagePhase.CONTINUES, OutagePhase.ENDED]
    assert [(line.seconds, line.failures) for line in server.lines] == [(0, 1), (60, 61), (120, 121), (150, 150)]


def test_what_fails_and_works_in_turn_is_one_outage() -> None:
    server = Server()
    for _ in range(20):
        server.fail()
        server.work(2)
    server.work(int(SETTLE_SECONDS))
    assert server.phases == [OutagePhase.BEGAN, OutagePhase.ENDED]
    assert server.lines[-1].failures == 20


def test_another_kind_of_failure_gets_a_line_at_once_and_no_more_than_one_a_minute() -> None:
    server = Server()
    for _ in range(int(LINE_INTERVAL_SECONDS / 2)):
        server.fail(kind="unavailable")
        server.fail(kind="missing right")
    assert server.phases == [OutagePhase.BEGAN, OutagePhase.BEGAN]


def test_the_next_outage_begins_anew() -> None:
    server = Server()
    for _ in range(2):
        server.fail(2)
        server.work(10)
    assert server.phases == [OutagePhase.BEGAN, OutagePhase.ENDED] * 2
    assert server.lines[-1].failures == 2


def test_the_reason_counts_while_it_fails_again_and_again() -> None:
    server = Server()
    server.fail()
    assert server.log.find_reason() == ""
    server.fail()
    assert server.log.find_reason() == "refused"
    server.clock.advance(LINE_INTERVAL_SECONDS)
    assert server.log.find_reason() == ""  # nothing has tried for a while


def test_each_line_says_what_it_is_about() -> None:
    texts = [OutageLine(phase, 75.4, 70, "refused").describe("the ledger") for phase in OutagePhase]
    assert texts == [
        "the ledger fails, it is tried again: refused",
        "the ledger has failed 70 times in 75 s: refused",
        "the ledger works again after 75 s, failures: 70",
    ]
