"""`--watch` shows an answer again until Ctrl-C; without a terminal once."""

from __future__ import annotations

import time

import pytest

from ecs_queue.cli.ui import watch
from ecs_queue.errors import UsageError


def test_a_terminal_gets_it_again_until_ctrl_c_which_is_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    def show() -> int:
        shown.append("once more")
        return 1

    monkeypatch.setattr(watch, "can_draw", lambda: True)
    monkeypatch.setattr(time, "sleep", sleep)
    assert watch.show_repeatedly(5.0, False, show) == 0
    assert (len(shown), pauses) == (3, [5.0, 5.0, 5.0])


@pytest.mark.parametrize("seconds", [None, 5.0])
def test_without_a_terminal_it_is_shown_once_with_its_status(seconds: float | None) -> None:
    shown: list[str] = []

    def show() -> int:
        shown.append("once")
        return 1

    assert watch.show_repeatedly(seconds, False, show) == 1
    assert shown == ["once"]


def test_json_is_not_watched() -> None:
    with pytest.raises(UsageError, match="leave one of them out"):
        watch.show_repeatedly(2.0, True, lambda: 0)
