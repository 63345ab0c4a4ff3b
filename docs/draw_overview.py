"""Draws docs/overview.svg, the picture in the README: python docs/draw_overview.py > docs/overview.svg."""

from __future__ import annotations

import sys
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 300
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328; text-anchor: middle; }
  .title { font-weight: 600; } .small { font-size: 12px; fill: #59636e; }
  rect { fill: #f6f8fa; stroke: #59636e; rx: 8px; } .store { fill: #ddf4ff; stroke: #0969da; }
  path { fill: none; stroke: #59636e; stroke-width: 1.5; marker-end: url(#head); }
  #head path { fill: #59636e; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } rect { fill: #151b23; stroke: #9198a1; }
    .store { fill: #121d2f; stroke: #4493f8; } path { stroke: #9198a1; } #head path { fill: #9198a1; }
  }
"""


class Box(NamedTuple):
    """A rectangle with a title and lines of text below it; x and y are its upper left corner."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    style: str = ""


class Arrow(NamedTuple):
    """An arrow from left to right, or back, with a text above it; y is its height."""

    start: int
    end: int
    y: int
    text: str


BOXES = (
    Box(10, 60, 150, 180, "Callers", ("command line, Python", "Airflow scheduler", "any language")),
    Box(275, 30, 190, 100, "Queue", ("messages:", "Redis, RabbitMQ, SQS"), "store"),
    Box(275, 170, 190, 100, "Ledger", ("one record a request,", "in Redis or Valkey"), "store"),
    Box(560, 60, 120, 180, "Workers", ("any number,", "no state of", "their own")),
    Box(750, 60, 100, 180, "ECS", ("your", "containers")),
)
ARROWS = (
    Arrow(160, 275, 80, "request"),
    Arrow(465, 560, 80, "request"),
    Arrow(560, 465, 115, "result"),
    Arrow(275, 160, 115, "result"),
    Arrow(160, 275, 215, "submit, check"),
    Arrow(560, 465, 215, "claim, decide"),
    Arrow(680, 750, 115, "launch"),
    Arrow(750, 680, 195, "end"),
)


def draw_text(x: float, y: float, text: str, style: str) -> str:
    """Return one line of text, centered at x."""
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(text)}</text>'


def draw_box(box: Box) -> list[str]:
    """Return the elements of a box; its text stands in the middle of it."""
    top = box.y + box.height / 2 - 9 * len(box.lines) + 4
    center = box.x + box.width / 2
    rectangle = f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" class="{box.style}"/>'
    lines = [draw_text(center, top + 20 + 18 * number, line, "small") for number, line in enumerate(box.lines)]
    return [rectangle, draw_text(center, top, box.title, "title"), *lines]


def draw_arrow(arrow: Arrow) -> list[str]:
    """Return the elements of an arrow, which ends a little before what it points to."""
    gap = 4 if arrow.end > arrow.start else -4
    line = f'<path d="M{arrow.start + gap},{arrow.y} H{arrow.end - 2 * gap}"/>'
    return [line, draw_text((arrow.start + arrow.end) / 2, arrow.y - 6, arrow.text, "small")]


def draw_picture() -> str:
    """Return the SVG."""
    elements = [element for box in BOXES for element in draw_box(box)]
    elements += [element for arrow in ARROWS for element in draw_arrow(arrow)]
    head = '<marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t">',
            '<title id="t">Callers submit requests to a queue and a ledger; workers launch them on ECS.</title>',
            f"<style>{STYLE}</style>",
            f'<defs>{head}<path d="M0,0 L8,4 L0,8 Z"/></marker></defs>',
            *elements,
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    sys.stdout.write(draw_picture())
