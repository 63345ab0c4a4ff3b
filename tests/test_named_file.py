"""Reading files whose names users give."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ecs_queue.named_file import open_named_file, read_named_file, read_stream


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_named_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_named_file(tmp_path / "file", 4)
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_stream(io.BytesIO(b"12345"), 4)


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(OSError, match="more than 1000 bytes"):
        read_named_file("/dev/zero", 1000)


def test_a_name_that_no_file_has_is_an_error_with_a_sentence() -> None:
    with pytest.raises(OSError, match="no null character") as caught:
        open_named_file("a\0b")
    assert caught.value.strerror == "a file's name has no null character"
