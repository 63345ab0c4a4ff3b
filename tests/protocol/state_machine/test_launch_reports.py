"""When an empty list proves that no task was started."""

from __future__ import annotations

import msgspec
from hypothesis import given

from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER
from ecs_queue.protocol.state_machine import launch_reports
from ecs_queue.protocol.states import State
from tests.protocol.state_machine.records import NOW, SETTINGS, records


@given(records)
def test_absence_needs_a_list_call_begun_late_enough_and_within_the_hour(record: Record) -> None:
    before = msgspec.structs.replace(record)
    code = launch_reports.task_absent(record, "held", 2.0, "search for it", NOW, SETTINGS)
    if code in (ResultCode.REQUEUED, ResultCode.ENDED):
        began = before.lease_until - SETTINGS.lease_seconds
        assert began >= before.last_claim_at + SETTINGS.lease_seconds + SETTINGS.settle_seconds - 0.001
        if NOW - before.first_called_at > ABSENCE_UNPROVABLE_AFTER:
            assert record.state is State.UNKNOWN
