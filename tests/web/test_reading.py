"""What is read from the journal of a request."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.journal import JournalEvent
from ecs_queue.web.reading import arguments_text, find_origin, revealed_arguments_text


def submission(envelope: Any) -> JournalEvent:
    return JournalEvent(v=1, seq="1-0.0", at=1.0, name="request.submitted", id="one", data={"envelope": envelope})


def test_the_newest_envelope_names_the_origin() -> None:
    assert find_origin([submission({"origin": "first"}), submission({"origin": "second"})]) == "second"
    assert find_origin([submission({"command": ["true"]})]) == ""
    assert find_origin([]) == ""


@pytest.mark.parametrize("envelope", ["text", 7, ["origin"], {"origin": 7}, {"origin": None}])
def test_an_envelope_of_another_form_names_no_origin_and_breaks_no_page(envelope: Any) -> None:
    events = [submission(envelope)]
    assert find_origin(events) == ""
    for show in (arguments_text, revealed_arguments_text):
        assert "text" not in show(events)
