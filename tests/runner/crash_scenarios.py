"""What is there when a runner has died at each of its crash points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class AfterTheCrash(NamedTuple):
    """The run's phase, how often its command was started, and whether the run is closed."""

    phase: str
    starts: int
    is_closed: bool = False


AFTER_THE_CRASH: Mapping[str, AfterTheCrash] = {
    "runner.turn_taken": AfterTheCrash("fetched", 0),
    "runner.command_started": AfterTheCrash("fetched", 1),
    "runner.command_ended": AfterTheCrash("fetched", 1),
    "runner.end_reported": AfterTheCrash("ended", 1),
    "runner.left": AfterTheCrash("ended", 1, is_closed=True),
}
