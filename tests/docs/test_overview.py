"""The picture in the README is what its script draws."""

from __future__ import annotations

import subprocess
import sys

from tests.docs import ROOT


def test_the_picture_is_what_its_script_draws() -> None:
    command = [sys.executable, str(ROOT / "docs" / "draw_overview.py")]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert drawn.stdout == (ROOT / "docs" / "overview.svg").read_text()
