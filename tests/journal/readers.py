"""Every reader of the journal's events."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ecs_queue.cli.ui.event_view import event_for_json, format_event_fields
from ecs_queue.cli.ui.timeline_view import timeline_summary, timeline_to_dicts
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.timeline import build_timeline
from ecs_queue.replay.decisions import replay_decisions
from ecs_queue.replay.past_request import call_in_event
from ecs_queue.replay.traffic import read_traffic


def read_events(events: Sequence[JournalEvent]) -> None:
    """Call every reader with these events. None may raise, whatever another process has written."""
    for event in events:
        msgspec.json.encode(event_for_json(event))
        format_event_fields(event)
        call_in_event(event)
    timeline = build_timeline(None, events, "a")
    if timeline is not None:
        timeline_summary(timeline)
        timeline_to_dicts(timeline)
    replay_decisions(events)
    read_traffic(events)
