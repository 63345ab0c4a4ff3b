"""What a type checker says of programs that use the client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PROGRAMS = [ROOT / "examples" / f"{name}.py" for name in ("map_reduce", "async_service", "functions")]
#: Each line is an error.
MISTAKES = """\
queue.submit(["true"], prority=1)
queue.submit(["true"], cpu="512")
queue.submit("true", memroy=512)
Request(command=["true"], enviroment={})
EcsExecutor(queue, time_limt=5)
EcsExecutor(queue).submit(abs, "text")
aio.submit(["true"], prority=1)
queue.submit(["true"]).result(1).exit_cod
queue.submit(["true"], relaunch="always")
"""
_HEAD = """\
from ecs_queue import AsyncEcsQueue, EcsExecutor, EcsQueue, Request
queue = EcsQueue.from_config()
aio = AsyncEcsQueue(queue)
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What pyright in strict mode says of the examples and of the mistakes."""
    directory = tmp_path_factory.mktemp("types")
    (directory / "mistakes.py").write_text(_HEAD + MISTAKES)
    config = {
        "include": [str(path) for path in (*PROGRAMS, directory / "mistakes.py")],
        "extraPaths": [str(ROOT), str(ROOT / "examples")],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    (directory / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(directory)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    found: list[dict[str, Any]] = json.loads(ended.stdout)["generalDiagnostics"]
    return found


def test_the_examples_have_no_error_in_strict_mode_and_no_cast(errors: list[dict[str, Any]]) -> None:
    assert [error for error in errors if not error["file"].endswith("mistakes.py")] == []
    for path in PROGRAMS:
        text = path.read_text()
        assert not any(word in text for word in ("cast(", "type: ignore", "pyright:", "Any")), path


def test_a_misspelt_argument_and_a_wrong_value_are_errors(errors: list[dict[str, Any]]) -> None:
    lines = {error["range"]["start"]["line"] for error in errors if error["file"].endswith("mistakes.py")}
    first = _HEAD.count("\n")
    assert lines == set(range(first, first + MISTAKES.count("\n")))
