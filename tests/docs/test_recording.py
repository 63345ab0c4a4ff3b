"""The pictures of terminals: small, with nothing from another site, and in motion only where that is wanted."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.docs import ROOT

PICTURE = ROOT / "docs" / "demo.svg"
TERMINALS = sorted((ROOT / "docs" / "terminal").glob("*.svg"))


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    name = "terminal_pictures"
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def texts_of(picture: str) -> list[str]:
    root = ElementTree.fromstring(picture)
    return [element.text or "" for element in root.iter() if element.tag.endswith("}text")]


def visible_texts_of(picture: str) -> list[str]:
    """The texts that are seen where nothing moves."""
    root = ElementTree.fromstring(picture)
    return [
        element.text or ""
        for group in root
        if group.get("visibility") != "hidden"
        for element in group.iter()
        if element.tag.endswith("}text")
    ]


def screen_of(*rows: str, color: str = "default", columns: int = 20) -> Any:
    """A screen as pyte has it. A character that is two cells wide stands before an empty cell."""
    cells = [
        [SimpleNamespace(data=char.strip("\0"), fg=color, bold=False) for char in row.ljust(columns)] for row in rows
    ]
    return SimpleNamespace(buffer=cells, columns=columns, lines=len(rows))


@pytest.mark.parametrize("path", [PICTURE, *TERMINALS], ids=lambda path: path.name)
def test_a_picture_is_small_and_has_nothing_from_another_site(path: Path) -> None:
    picture = path.read_text()
    assert len(picture) < 150_000
    assert not re.search(r"url\(|<script|href|@import|https?://(?!www\.w3\.org/2000/svg|127\.0\.0\.1)", picture)
    assert "@media (prefers-color-scheme:dark)" in picture
    assert texts_of(picture)


def test_the_recording_ends_with_a_demo_that_ended_well_and_shows_it_where_nothing_moves() -> None:
    picture = PICTURE.read_text()
    shown = " ".join(visible_texts_of(picture))
    for part in ("ecs-queue demo --tasks 12", "12 of 12 ended as they should", "SUCCESS"):
        assert part in shown
    assert "LAUNCHED" not in shown
    assert "LAUNCHED" in texts_of(picture)
    before, _, motion = picture.partition("@media (prefers-reduced-motion:no-preference)")
    assert "animation" not in before
    assert "infinite" in motion


def test_there_is_a_picture_of_each_command_at_both_widths() -> None:
    names = {path.stem.rpartition("-")[0] for path in TERMINALS}
    assert names == {"status", "tasks", "workers", "queues", "top", "demo"}
    assert {path.stem for path in TERMINALS} == {f"{name}-{width}" for name in names for width in (80, 160)}


def test_columns_of_a_table_stay_where_they_are(pictures: ModuleType) -> None:
    (line,) = pictures.read_lines(screen_of(" id  a state", "", ""))
    assert [(run.column, run.text) for run in line] == [(1, "id"), (5, "a state")]
    (line,) = pictures.read_lines(screen_of("世\0界\0  x", color="3a3a3a"))
    assert [(run.column, run.text, run.color) for run in line] == [(0, "世界", "muted"), (6, "x", "muted")]


def test_a_frame_is_drawn_as_text(pictures: ModuleType) -> None:
    lines = pictures.read_lines(screen_of("a < b & c", color="brown"))
    picture = pictures.draw(*pictures.add_prompt([pictures.Frame(0.0, lines)], "run it"), 20, "what <it> is")
    assert texts_of(picture) == ["$ run it", "a < b & c"]
    assert 'class="yellow"' in picture
    assert "<title>what &lt;it&gt; is</title>" in picture


def test_what_changes_moves_and_what_stays_does_not(pictures: ModuleType) -> None:
    frames = [
        pictures.Frame(at, pictures.read_lines(screen_of("stays", text)))
        for at, text in ((0.0, "one"), (1.0, "two"), (1.01, "three"), (9.0, "four"))
    ]
    picture = pictures.animate(frames, 20, "title")
    assert sorted(texts_of(picture)) == ["four", "one", "stays", "three"]  # the second one is too short to be seen
    assert visible_texts_of(picture) == ["stays", "four"]
    # one second, a second and a half in place of eight, and six for the last frame
    assert ".a{animation:8.5s step-end infinite}" in picture
    assert "animation" not in picture.partition("@media (prefers-reduced-motion:no-preference)")[0]
    assert "@keyframes n3{0%{visibility:hidden}29.41%{visibility:visible}}" in picture


def test_the_frames_of_a_command_are_recorded(
    pictures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = tmp_path / "recorded"
    script = f"""
import pathlib, time
print("one", flush=True)
while not pathlib.Path({str(recorded)!r}).exists():
    time.sleep(0.01)
print("\\x1b[1Atwo", flush=True)
"""

    def make_frame(*arguments: Any) -> Any:
        recorded.touch()
        return frame_type(*arguments)

    frame_type = pictures.Frame
    monkeypatch.setattr(pictures, "Frame", make_frame)
    frames = pictures.record([sys.executable, "-c", script], 40, 5)
    assert [[run.text for line in frame.lines for run in line] for frame in frames][-1] == ["two"]
    assert ["one"] in [[run.text for line in frame.lines for run in line] for frame in frames]
