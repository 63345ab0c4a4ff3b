"""The signals that end a command in order. SIGHUP, the end of its terminal or session, is SIGTERM."""

from __future__ import annotations

import signal

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, SIGINT and SIGHUP; the last not where it is ignored, as under `nohup`."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(number for number in _STOP_SIGNALS if number is not signal.SIGHUP or not is_ignored)
