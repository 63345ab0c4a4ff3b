"""What a record and a submission show of their payload."""

from __future__ import annotations

import msgspec

from ecs_queue.protocol.record import Record
from tests.protocol.state_machine.records import SUBMISSION


def test_a_record_and_a_submission_show_no_payload() -> None:
    secret = b'{"command": ["hunter2"]}'
    assert "hunter2" not in repr(Record(id="job", request=secret, args="hunter2"))
    assert "hunter2" not in repr(msgspec.structs.replace(SUBMISSION, request=secret))
