"""The source archive has everything that its own tests read, and building warns of nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What tools leave in a working copy, as in .gitignore, and what git needs.
_NOT_COPIED = shutil.ignore_patterns(
    ".git",
    ".gitignore",
    ".venv*",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    ".*_cache",
    ".hypothesis",
    ".local",
    ".env",
)
#: Tests that read files of the package, docs/, conf/, findings/ and tests/ itself, and take no second.
_QUICK_TESTS = ("tests/docs/test_links.py", "tests/config/test_annotate.py", "tests/messages/test_schema.py")


def run_python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, with that folder's packages, and return all that it printed."""
    completed = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def files_below(folder: Path) -> Iterator[str]:
    """The files of a folder, as paths from it."""
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the project, as building writes into it."""
    return shutil.copytree(ROOT, tmp_path / "source", ignore=_NOT_COPIED, symlinks=True)


@pytest.mark.slow
def test_a_source_archive_is_complete_and_runs_its_tests(source: Path, tmp_path: Path) -> None:
    expected = set(files_below(source))
    run_python(source, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path / "dist"))
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert expected - set(files_below(unpacked)) == set()
    assert " passed" in run_python(unpacked, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_QUICK_TESTS)


def test_a_build_warns_of_nothing_and_installs_the_scripts_of_the_server(source: Path, tmp_path: Path) -> None:
    said = run_python(source, "setup.py", "--quiet", "build", "--build-base", str(tmp_path / "build"))
    assert [line for line in said.splitlines() if "Warning" in line or "ignored" in line] == []
    built = set(files_below(tmp_path / "build" / "lib"))
    files = set(files_below(source))
    # `ecs-queue conf` of an installation reads its copy of conf/.
    expected = {f for f in files if f.startswith("ecs_queue/")} | {
        f"ecs_queue/{f}" for f in files if f.startswith("conf/")
    }
    assert expected == built
    lib = tmp_path / "build" / "lib"
    for path in (source / "conf").iterdir():
        assert (lib / "ecs_queue" / "conf" / path.name).read_bytes() == path.read_bytes()
    listed = run_python(lib, "-m", "ecs_queue", "conf", "list", "--json").splitlines()
    assert {Path(json.loads(line)["path"]).parent for line in listed} == {lib / "ecs_queue" / "conf"}


def test_the_project_has_no_links(source: Path) -> None:
    """A copy of a repository may have a file in place of a link."""
    assert [path for path in source.rglob("*") if path.is_symlink()] == []
