"""Gives the terminal back, as it was, when a signal ends or stops a command that draws on it."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any

from ecs_queue.local.stop_signals import stop_signals


@dataclass(frozen=True, repr=False)
class Drawing:
    """What a drawing does to the terminal.

    Attributes:
        begin: The bytes that the library writes before it draws.
        end: The bytes that take that back.
    """

    begin: bytes
    end: bytes


#: Lines that are drawn again and again hide the cursor.
LINES = Drawing(b"\x1b[?25l", b"\x1b[?25h")
#: A screen of its own leaves what the terminal showed before as it is.
SCREEN = Drawing(b"\x1b[?1049h\x1b[H\x1b[?25l", b"\x1b[?25h\x1b[?1049l")


@contextmanager
def give_back_terminal(stream: IO[Any], drawing: Drawing, redraw: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Give the terminal back before SIGTERM, SIGHUP or Ctrl-Z does what it does. Main thread only.

    Without this the process ends at once, and the shell goes on without a cursor, without an echo of what is typed, or
    on the screen of the drawing.

    Args:
        stream: On the terminal; anything else is left alone.
        drawing: What is to be taken back.
        redraw: Called when the process goes on after Ctrl-Z, and when the terminal has another size: in a signal
            handler, which may have interrupted a drawing, so it must not draw itself.
    """
    if not stream.isatty():
        yield
        return
    try:
        number = stream.fileno()
    except OSError:  # a stream of a test
        yield
        return
    modes = termios.tcgetattr(number)
    previous: dict[int, Any] = {}

    def handle(signal_number: int, frame: FrameType | None) -> None:
        with _taken_back(number, modes, drawing):
            if callable(previous[signal_number]):
                previous[signal_number](signal_number, frame)
            else:
                signal.signal(signal_number, previous[signal_number])
                signal.raise_signal(signal_number)  # it ends the process, or stops it here
                signal.signal(signal_number, handle)
        redraw()

    each: int
    for each in (*stop_signals(), signal.SIGTSTP):
        # Ctrl-C is an exception, and what is ignored, as under nohup, stays ignored.
        if each != signal.SIGINT and signal.getsignal(each) not in (signal.SIG_IGN, None):
            previous[each] = signal.signal(each, handle)
    previous[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: redraw())
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


@contextmanager
def _taken_back(number: int, modes: list[Any], drawing: Drawing) -> Iterator[None]:
    """Put the terminal back as it was, and draw again at the end. A terminal that is gone is none to put back."""
    drawn_modes: list[Any] = modes
    with suppress(OSError, termios.error):
        if not _is_in_background(number):  # the kernel would stop it
            drawn_modes = termios.tcgetattr(number)
            termios.tcflow(number, termios.TCOON)  # after Ctrl-S the next line would block
            termios.tcsetattr(number, termios.TCSANOW, modes)
        os.write(number, drawing.end)
    yield
    with suppress(OSError, termios.error):
        if drawn_modes != modes:
            termios.tcsetattr(number, termios.TCSANOW, drawn_modes)
        os.write(number, drawing.begin)


def _is_in_background(number: int) -> bool:
    """Return whether the terminal belongs to another job. One that does not control this process never does."""
    try:
        return os.tcgetpgrp(number) != os.getpgrp()
    except OSError:
        return False
