"""The local ECS's files are read as they grow, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecs_queue.container_logs.base import LogUnavailable
from ecs_queue.container_logs.local_files import LocalLogFile, open_local_file
from ecs_queue.errors import UsageError


def texts(log: LocalLogFile) -> list[str]:
    return [line.text for line in log.read().lines]


def test_a_file_is_read_as_it_grows_and_a_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "abc.log"
    log = LocalLogFile(path)
    assert (texts(log), log.read().is_last) == ([], True)
    assert log.missing.startswith("there is no such file")
    with path.open("ab", buffering=0) as file:
        file.write(b"one\ntw")
        assert texts(log) == ["one"]
        file.write(b"o\n\xff\xc3\n\nrest")
        assert [text.encode("utf-8", "surrogateescape") for text in texts(log)] == [b"two", b"\xff\xc3", b""]
    assert (texts(log), [line.text for line in log.read_rest()], log.read_rest()) == ([], ["rest"], [])


def test_a_big_file_has_several_pages_and_an_endless_line_is_given_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "abc.log"
    path.write_bytes(b"line\n" * 300_000 + b"x" * 3_000_000)
    log = LocalLogFile(path)
    pages = [log.read()]
    while not pages[-1].is_last:
        pages.append(log.read())
    found = [line.text for page in pages for line in page.lines] + [line.text for line in log.read_rest()]
    assert found[:300_000] == ["line"] * 300_000
    assert "".join(found[300_000:]) == "x" * 3_000_000
    assert max(map(len, found)) < 3_000_000


@pytest.mark.parametrize(("tail", "expected"), [(0, []), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_the_newest_lines_are_read_and_then_what_follows(tmp_path: Path, tail: int, expected: list[str]) -> None:
    path = tmp_path / "abc.log"
    path.write_text("a\nb\nc\n")
    log = LocalLogFile(path, tail=tail)
    assert texts(log) == expected
    with path.open("a") as file:
        file.write("d\n")
    assert texts(log) == ["d"]


@pytest.mark.parametrize("before", [0, 1, 10_000_000])
def test_a_file_is_read_from_a_mark_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    path = tmp_path / "abc.log"
    path.write_bytes(b"of another\n" + b"x" * before + b"\nbegin the mark here\nown\n")
    for block in (3, 20, 8 << 20):
        monkeypatch.setattr("ecs_queue.container_logs.local_files._MAX_TAIL_BYTES", max(block, before // 100))
        assert texts(LocalLogFile(path, mark="the mark")) == ["the mark here", "own"]


def test_while_a_file_has_no_mark_its_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecs_queue.container_logs.local_files._MAX_TAIL_BYTES", 5)
    path = tmp_path / "abc.log"
    path.write_text("first\nlast\n")
    log = LocalLogFile(path, mark="the mark")
    assert texts(log) == ["last"]
    with path.open("a") as file:
        file.write("the mark\nown\n")
    assert texts(log) == ["the mark", "own"]


def test_every_line_of_a_file_that_did_not_exist_at_first_is_new(tmp_path: Path) -> None:
    log = LocalLogFile(tmp_path / "abc.log", tail=1)
    assert texts(log) == []
    (tmp_path / "abc.log").write_text("a\nb\n")
    assert texts(log) == ["a", "b"]


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "abc.log").mkdir()
    with pytest.raises(LogUnavailable, match=r"the local ECS's abc\.log cannot be read: Is a directory"):
        LocalLogFile(tmp_path / "abc.log").read()
    with pytest.raises(UsageError, match="keeps no times"):
        open_local_file(tmp_path, "abc", tail=None, since=1.0)
