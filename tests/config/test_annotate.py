"""The annotated configuration file conf/ecs_queue.cfg."""

from __future__ import annotations

import re
from pathlib import Path

from ecs_queue.config import load_config
from ecs_queue.config.annotate import annotated_config
from ecs_queue.config.main_keys import MAIN_KEYS
from ecs_queue.config.profile_keys import PROFILE_KEYS

FILE = Path(__file__).parents[2] / "conf" / "ecs_queue.cfg"


def test_the_file_is_generated_from_the_keys() -> None:
    assert FILE.read_text(encoding="utf-8") == annotated_config()


def test_the_file_loads_and_changes_nothing() -> None:
    assert load_config(str(FILE), {}) == load_config(environ={})


def test_every_key_is_named_with_its_default_and_a_meaning() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    for key in (*MAIN_KEYS.values(), *PROFILE_KEYS.values()):
        position = lines.index(f"# {key.name} = {key.default or ''}".rstrip())
        assert lines[position - 1].startswith("#: ")


def test_with_every_key_uncommented_the_values_are_the_same(tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8").partition("# [aws_ecs_executor.gpu]")[0]
    switched_on = re.sub(r"(?m)^# (\w+ =)", r"\1", text)
    file = tmp_path / "on.cfg"
    file.write_text(switched_on, encoding="utf-8")
    on, off = load_config(str(file), {}), load_config(environ={})
    assert on.profile("default") == off.profile("default")
    assert all(getattr(on, key) == getattr(off, key) for key in MAIN_KEYS)


def test_no_line_is_too_long() -> None:
    assert max(map(len, annotated_config().splitlines())) <= 110
