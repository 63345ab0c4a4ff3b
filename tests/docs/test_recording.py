"""The picture of the demo in the README: small, whole, and without anything from another site."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from xml.etree import ElementTree

from tests.docs import ROOT

PICTURE = ROOT / "docs" / "demo.svg"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_demo", ROOT / "docs" / "draw_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(picture: str) -> str:
    return " ".join("".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ").split())


def test_the_picture_in_the_repository_shows_a_demo_that_ended_well() -> None:
    picture = PICTURE.read_text()
    assert len(picture) < 300_000
    assert not re.search(r"url\(\"?http|<script|href", picture)
    shown = text_of(picture)
    for part in ("ecs-queue demo --tasks 12", "12 of 12 ended as they should", "LAUNCHED", "SUCCESS"):
        assert part in shown


def test_one_frame_of_the_live_table_is_drawn_between_the_beginning_and_the_end() -> None:
    script = load_script()
    frames = [f"\r\x1b[2K{script.ERASE * 2 * bool(n)}\x1b[1mframe {n}\x1b[0m\n row {n}\n" for n in range(10)]
    written = f"before\n{script.BEGIN}{''.join(frames)}{script.END}\r{script.ERASE * 2}after\n"
    shown = text_of(script.draw(written))
    drawn = re.findall(r"before|after|frame \d|row \d", shown)
    assert drawn == ["before", "frame 4", "row 4", "after"]
