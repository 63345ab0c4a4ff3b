"""Runs a command on a terminal and draws what it shows as SVG: one picture, or the whole run as an animation.

The pictures have no script and nothing from another site. They follow the reader's light or dark mode, and an animation
stands still, at its end, for who asks for less motion.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise
from typing import Any

#: Size of a cell and of the space around the lines. Pixels, of a font of 14.
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 14
#: A frame is what a terminal shows when nothing was written for this time. Seconds.
_QUIET_SECONDS = 0.03
#: The longest time of a frame in an animation, and that of the last one. Seconds.
_MAX_FRAME_SECONDS, _LAST_FRAME_SECONDS = 1.5, 6.0
_TIMEOUT_SECONDS = 120.0
#: A text of as many characters gets its width: fonts differ a little.
_LONG_TEXT = 12
#: The names of pyte's colours, and rich's of the rest of a bar.
_CLASSES = {
    **{name: name for name in ("red", "green", "blue", "magenta", "cyan")},
    **{f"bright{name}": name for name in ("red", "green", "blue", "magenta", "cyan")},
    **dict.fromkeys(("brown", "yellow", "brightbrown", "brightyellow"), "yellow"),
    **dict.fromkeys(("black", "brightblack", "3a3a3a"), "muted"),
}
_LIGHT = {
    "back": "#ffffff",
    "line": "#d0d7de",
    "default": "#1c2430",
    "muted": "#8a94a3",
    "red": "#a3171b",
    "green": "#12693a",
    "yellow": "#7a4b00",
    "blue": "#17508f",
    "magenta": "#7b2f8f",
    "cyan": "#0b626d",
}
_DARK = {
    "back": "#12161c",
    "line": "#2d3642",
    "default": "#e4e9f0",
    "muted": "#7d8794",
    "red": "#ff9c9c",
    "green": "#7fdca4",
    "yellow": "#f4c56b",
    "blue": "#9cc8ff",
    "magenta": "#dba6ec",
    "cyan": "#7fd6e0",
}


@dataclass(frozen=True)
class Run:
    """Characters of one style that stand side by side, from `column` on."""

    column: int
    text: str
    color: str = "default"
    bold: bool = False


#: What a line shows.
Line = tuple[Run, ...]


@dataclass(frozen=True)
class Frame:
    """What the terminal shows from `at` on, in seconds since the start."""

    at: float
    lines: tuple[Line, ...]


def record(
    command: Sequence[str],
    columns: int,
    rows: int,
    environ: Mapping[str, str] | None = None,
    *,
    end_key: bytes = b"",
    end_after: float = 0.0,
) -> list[Frame]:
    """Run a command on a terminal of this size, and return each frame that it shows.

    `end_key` is pressed `end_after` seconds after the start. SystemExit: the command has failed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    given = {**os.environ, **(environ or {})}
    inherited = {name: value for name, value in given.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(  # noqa: S603 - it is the project's own command
        command, env={**inherited, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        frames, written = _read_frames(ours, columns, rows, end_key, end_after)
    finally:
        os.close(ours)
    if process.wait(_TIMEOUT_SECONDS):
        raise SystemExit(f"{' '.join(command)} failed:\n{written.decode(errors='replace')}")
    return frames


def _read_frames(terminal: int, columns: int, rows: int, end_key: bytes, end_after: float) -> tuple[list[Frame], bytes]:
    import pyte

    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    frames, written, started, changed, is_over = list[Frame](), b"", time.monotonic(), False, False
    while (elapsed := time.monotonic() - started) < _TIMEOUT_SECONDS:
        if end_key and not is_over and elapsed >= end_after:
            os.write(terminal, end_key)
            is_over = True
        if select.select([terminal], [], [], _QUIET_SECONDS if changed else 0.25)[0]:
            data = b""
            with suppress(OSError):  # EIO: the command has ended
                data = os.read(terminal, 65536)
            if not data:
                break
            stream.feed(data)
            written, changed = written + data, True
        elif changed:
            if not is_over:  # what is written after the key clears the screen
                frames.append(Frame(elapsed, read_lines(screen)))
            changed = False
    if not is_over:
        frames.append(Frame(time.monotonic() - started, read_lines(screen)))
    return frames, written


def read_lines(screen: Any) -> tuple[Line, ...]:
    """Return the lines of pyte's screen, without empty ones at the end."""
    lines = [
        _read_line([screen.buffer[row][column] for column in range(screen.columns)]) for row in range(screen.lines)
    ]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _read_line(cells: Sequence[Any]) -> Line:
    """Group cells of one style. Two spaces begin another run, so that the columns of a table stay where they are.

    A character that is two cells wide is followed by a cell without one.
    """
    runs: list[Run] = []
    styled = [(_CLASSES.get(cell.fg, cell.fg), cell.bold) for cell in cells]
    for style, group in groupby(range(len(cells)), styled.__getitem__):
        columns = list(group)
        texts = [cells[column].data for column in columns]
        start = 0
        while start < len(texts):
            end = start
            while end < len(texts) and texts[end : end + 2] not in ([" ", " "], [" "]):
                end += 1
            if text := "".join(texts[start:end]).rstrip():
                lead = len(text) - len(text.lstrip())
                runs.append(Run(columns[start] + lead, text.lstrip(), *style))
            start = end + 1
    return tuple(runs)


def add_prompt(frames: Iterable[Frame], command: str) -> list[Frame]:
    """Return the frames below a line with the command as it is typed."""
    line: Line = (Run(0, f"$ {command}", bold=True),)
    return [Frame(frame.at, (line, *frame.lines)) for frame in frames]


def draw(frame: Frame, columns: int, title: str) -> str:
    """Return one frame as SVG."""
    body = "".join(_draw_line(number, line) for number, line in enumerate(frame.lines))
    return _picture(columns, len(frame.lines), title, "", body)


def animate(frames: Sequence[Frame], columns: int, title: str, frames_per_second: float = 4.0) -> str:
    """Return the frames as one SVG that shows them in their time, again and again, and the last one for longer."""
    shown = _thin_out(frames, 1 / frames_per_second)
    times = _frame_times(shown)
    rows = max(len(frame.lines) for frame in shown)
    groups: dict[tuple[int, int], list[str]] = {}
    for row in range(rows):
        for line, start, end in _intervals([frame.lines[row] if row < len(frame.lines) else () for frame in shown]):
            if line:
                groups.setdefault((start, end), []).append(_draw_line(row, line))
    total, last = times[-1], len(shown)
    body, rules = [], []
    for number, ((start, end), texts) in enumerate(sorted(groups.items())):
        if (start, end) == (0, last):
            body += texts
            continue
        is_last = end == last
        body.append(f'<g class="a n{number}"{"" if is_last else _HIDDEN}>{"".join(texts)}</g>')
        steps = [(0.0, "hidden")] if start else []
        steps += [(times[start], "visible"), *([] if is_last else [(times[end], "hidden")])]
        keys = "".join(f"{100 * at / total:.4g}%{{visibility:{what}}}" for at, what in steps)
        rules.append(f".n{number}{{animation-name:n{number}}}@keyframes n{number}{{{keys}}}")
    motion = f".a{{animation:{total:.1f}s step-end infinite}}{''.join(rules)}"
    style = f"@media (prefers-reduced-motion:no-preference){{{motion}}}"
    return _picture(columns, rows, title, style, "".join(body))


_HIDDEN = ' visibility="hidden"'


def _thin_out(frames: Sequence[Frame], seconds: float) -> list[Frame]:
    """Return frames that last this time at least: of quicker ones the last. One that shows no change is left out."""
    shown: list[Frame] = []
    for frame in frames:
        if shown and frame.at - shown[-1].at < seconds:
            shown[-1] = Frame(shown[-1].at, frame.lines)
        elif not shown or frame.lines != shown[-1].lines:
            shown.append(frame)
    return shown


def _frame_times(frames: Sequence[Frame]) -> list[float]:
    """Return when each frame begins, and at last the end."""
    times = [0.0]
    for frame, following in pairwise(frames):
        times.append(times[-1] + min(_MAX_FRAME_SECONDS, following.at - frame.at))
    return [*times, times[-1] + _LAST_FRAME_SECONDS]


def _intervals(lines: Sequence[Line]) -> list[tuple[Line, int, int]]:
    """Return each line with the number of the frame from which on it is shown, and that of the first without it."""
    found, start = [], 0
    for line, group in groupby(lines):
        end = start + len(list(group))
        found.append((line, start, end))
        start = end
    return found


def _draw_line(row: int, line: Line) -> str:
    return "".join(_draw_run(row, run) for run in line)


def _draw_run(row: int, run: Run) -> str:
    x, y = MARGIN + run.column * CELL_WIDTH, MARGIN + row * LINE_HEIGHT + 14
    is_class = run.color in _LIGHT
    classes = " ".join([*([run.color] if is_class and run.color != "default" else []), *(["b"] if run.bold else [])])
    attributes = f' class="{classes}"' if classes else ""
    attributes += "" if is_class else f' fill="#{run.color}"'
    if len(run.text) >= _LONG_TEXT:
        cells = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in run.text)
        attributes += f' textLength="{cells * CELL_WIDTH:.0f}"'
    return f'<text x="{x:.0f}" y="{y}"{attributes}>{escape(run.text, quote=False)}</text>'


def _picture(columns: int, rows: int, title: str, style: str, body: str) -> str:
    width, height = round(2 * MARGIN + columns * CELL_WIDTH), 2 * MARGIN + rows * LINE_HEIGHT
    font = "14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(title)}</title>'
        f"<style>text{{font:{font};white-space:pre}}.b{{font-weight:700}}{_palette(_LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{_palette(_DARK)}}}{style}</style>"
        f'<rect class="w" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>{body}</svg>\n'
    )


def _palette(colors: Mapping[str, str]) -> str:
    texts = "".join(
        f".{name}{{fill:{value}}}" for name, value in colors.items() if name not in ("back", "line", "default")
    )
    return f"svg{{fill:{colors['default']}}}.w{{fill:{colors['back']};stroke:{colors['line']}}}{texts}"
